"""Logins with another provider by OpenID Connect: authorization code, PKCE, state and nonce."""
