"""Mails to buyers: put up in the transaction of what they tell, sent by the worker."""
