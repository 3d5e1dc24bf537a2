"""The loops of the shop that the worker runs beside the engine's. Decides nothing."""

from random import Random

from api.carriers.registry import make_carriers
from api.cart.sweeper import CartSweeper, CheckoutSweeper
from api.mail.mailer import Mailer
from api.mail.orders import OrderMails
from api.mail.senders import make_sender
from api.points.expiry import PointsExpiry
from api.reconciliation.reconciler import ReconcilerLoop
from api.returns.refunds import ReturnRefunds
from api.search.freshness import Freshness
from api.shipping.shipper import BATCH_MAX, Shipper, Tracker
from api.subscriptions.loops import CONNECTIONS_MAX, Deliverer, FanOut
from api.users.links import LinkSender, links_url
from api.users.sweeping import Sweeper
from engine.core import Engine
from engine.payment.http import HttpClient
from engine.worker import Loop

SHOP_CONNECTIONS_MAX = (
    CONNECTIONS_MAX + 2 * BATCH_MAX
)  # Receivers', and carriers': to ship, to track.


def shop_loops(engine: Engine, http: HttpClient) -> list[tuple[str, Loop]]:
    """Each with its name. Producers and consumers alike: they share nothing but Postgres.

    `http` is not the client by which payments are made: carriers and receivers of events that never
    answer would take its connections.
    """
    dice = Random()  # noqa: S311  # Spreads returns; hides nothing.
    carriers = make_carriers(engine.settings, http, engine.clock)
    return [
        ("Links", LinkSender(engine.pool, engine.clock, links_url(engine.settings))),
        ("Sweeper", Sweeper(engine.pool, engine.clock)),
        ("Checkout sweeper", CheckoutSweeper(engine)),
        ("Cart sweeper", CartSweeper(engine)),
        ("Order mails", OrderMails(engine.pool)),
        ("Mailer", Mailer(engine.pool, make_sender(engine.settings))),
        ("Search index", Freshness(engine.pool)),
        ("Shipper", Shipper(engine.pool, carriers)),
        ("Tracker", Tracker(engine.pool, carriers)),
        ("Return refunds", ReturnRefunds(engine.pool, engine.payments)),
        ("Reconciler", ReconcilerLoop(engine)),
        ("Points expiry", PointsExpiry(engine.pool, engine.clock)),
        ("Fan-out", FanOut(engine.pool)),
        ("Deliverer", Deliverer(engine.pool, http, engine.clock, dice)),
    ]
