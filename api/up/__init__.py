"""Runs the whole engine on one machine: servers, migrations, fronts, worker; in order, and back."""
