"""Where buyers and payment providers reach this shop."""

from engine.config import Settings


def shop_url(settings: Settings) -> str:
    """Without a slash at its end."""
    url = settings.public_url or f"http://{settings.host}:{settings.port}"
    return url.rstrip("/")
