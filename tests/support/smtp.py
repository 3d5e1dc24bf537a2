"""A mail server on loopback: takes mails as RFC 5321 has it, and refuses what it is told to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import cast


@dataclass
class MailServer:
    """What arrived, and what to say to whom. `refusals` are whole reply lines, by recipient."""

    port: int = 0
    arrived: list[EmailMessage] = field(default_factory=list)
    envelopes: list[tuple[str, list[str]]] = field(default_factory=list)
    refusals: dict[str, str] = field(default_factory=dict)
    conversations: int = 0

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.conversations += 1
        sender, recipients = "", list[str]()
        writer.write(b"220 mail.test ESMTP\r\n")
        while line := (await reader.readline()).decode().strip():
            verb = line.upper()
            if verb.startswith("EHLO"):
                writer.write(b"250-mail.test\r\n250-SMTPUTF8\r\n250 8BITMIME\r\n")
            elif verb.startswith("MAIL FROM:"):
                sender, recipients = _address(line), []
                writer.write(b"250 ok\r\n")
            elif verb.startswith("RCPT TO:"):
                refusal = self.refusals.get(_address(line))
                if refusal is None:
                    recipients.append(_address(line))
                writer.write(f"{refusal or '250 ok'}\r\n".encode())
            elif verb == "DATA":
                writer.write(b"354 go on\r\n")
                body = await reader.readuntil(b"\r\n.\r\n")
                unstuffed = body[:-3].replace(b"\r\n..", b"\r\n.")
                mail = message_from_bytes(unstuffed, policy=default)
                self.arrived.append(cast("EmailMessage", mail))
                self.envelopes.append((sender, recipients))
                writer.write(b"250 taken\r\n")
            elif verb == "QUIT":
                writer.write(b"221 bye\r\n")
                break
            else:
                writer.write(b"250 ok\r\n")
        writer.close()


@asynccontextmanager
async def mail_server() -> AsyncIterator[MailServer]:
    made = MailServer()
    server = await asyncio.start_server(made.talk, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


def _address(line: str) -> str:
    return line[line.index("<") + 1 : line.index(">")]
