"""Who carries parcels: the protocol, the sandbox carrier and its client, and the call they make."""
