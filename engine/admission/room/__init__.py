"""The waiting room of a sale: who may try to buy now, and in which order.

Counts people and places. Leaves stock to engine/inventory and words for people to the borders.
"""
