"""aiohttp's server protocol, and the little that this project adds to it."""

import logging
from typing import Final

from aiohttp import web

from api.problems import Code, problem

logger = logging.getLogger(__name__)

# aiohttp reports every malformed request as an error with its traceback; the answer is enough.
quiet = logging.getLogger("aiohttp.quiet")
quiet.setLevel(logging.CRITICAL)

# Most often a letter: people paste 手机 into an address and leave the encoding to the program.
NOT_HTTP: Final = "This is not a valid HTTP request. What is not ASCII in a URL is percent-encoded."


class HttpConnection(web.RequestHandler):
    """aiohttp's protocol with our words for requests that are not HTTP."""

    # That the body of the request in work may take to arrive, where its handler grants it more.
    body_seconds = 0.0

    @property
    def is_working(self) -> bool:
        """Whether a request is being answered."""
        return self._request_in_progress

    def holds_part_of_a_request(self) -> bool:
        """Whether the parser waits for the rest of a request. Spoils the part: abort if True.

        Only for a connection whose last request was read to its end. aiohttp does not tell; its
        parser does when it is told that nothing more will come.
        """
        try:
            return self._parser is not None and self._parser.feed_eof() is not None
        except Exception:  # Half a request may fail to parse in any way.
            return True

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  # It quotes the client; ours does not.
    ) -> web.StreamResponse:
        if status != 400 and not isinstance(exc, ConnectionError):  # The client left.
            logger.error("A request failed.", exc_info=exc, extra={"action": "internal_error"})
        if request.writer.output_size > 0:
            raise ConnectionError("Half an answer is sent already.")
        code = Code.INVALID_REQUEST if status == 400 else Code.INTERNAL_ERROR
        detail = NOT_HTTP if status == 400 else ""
        response = problem(code, detail).to_response("none")
        response.force_close()
        return response
