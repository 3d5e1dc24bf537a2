"""Tells a buyer by mail what was decided of a return. What happens to orders, `api.mail.orders` tells."""

from api.mail.queue import put_mail
from api.returns.bodies import Return
from engine.model import public_id
from engine.store.database import Connection


async def mail_decision(connection: Connection, decided: Return) -> None:
    """In the decision's transaction. Users of a storefront's own, and unproven addresses, get none."""
    row = await connection.fetchrow(
        """
        SELECT users.email, users.name, coalesce(checkouts.language, users.language) AS language
        FROM users LEFT JOIN checkouts ON (sale_id, reservation_id) = ($2, $3)
        WHERE users.user_id = $1 AND email_verified_at IS NOT NULL AND deleted_at IS NULL
        """,
        decided.user_id,
        decided.sale_id,
        decided.reservation_id,
    )
    if row is None:
        return
    values = {
        "name": row["name"],
        "order_id": public_id(decided.sale_id, decided.reservation_id),
        "decision": decided.state,
    }
    if decided.decision:
        values["reason"] = decided.decision
    await put_mail(
        connection, kind="return_decided", to=row["email"], language=row["language"], values=values
    )
