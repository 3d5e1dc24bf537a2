"""The waiting room over HTTP: its door, and the call that those inside repeat."""
