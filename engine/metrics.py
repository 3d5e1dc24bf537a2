"""Counts events for Prometheus. Labels are bounded: never a user, an order or a sale id.

With several front processes, PROMETHEUS_MULTIPROC_DIR (set by `doorbuster up`) makes any of them
answer for all. The hot path counts in plain integers and adds them here once a second.
"""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

reservations: Final = Counter(
    "doorbuster_reservations", "Answers to reserve, by outcome.", ["outcome"]
)
requests: Final = Counter(
    "doorbuster_http_requests", "HTTP requests, by route and status.", ["route", "status"]
)
shed: Final = Counter("doorbuster_shed", "Requests refused to protect the system.", ["reason"])
batch_size: Final = Histogram(
    "doorbuster_reserve_batch_size",
    "Reservations per script call.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
)
orders_drained: Final = Counter("doorbuster_orders_drained", "Orders stored by the drainer.")
orders_oversold: Final = Counter(
    "doorbuster_orders_oversold", "Reservations refused by the database's own guard."
)
orders_expired: Final = Counter("doorbuster_orders_expired", "Orders whose deadline passed.")
payments: Final = Counter("doorbuster_payments", "Payments, by what became of them.", ["status"])
webhooks: Final = Counter("doorbuster_webhooks", "Webhooks received, by result.", ["result"])
deliveries: Final = Counter(
    "doorbuster_deliveries", "Attempts to tell other systems of an event, by result.", ["result"]
)
events_waited: Final = Gauge(
    "doorbuster_events_waited_seconds",
    "How long the oldest event waits to be handed to subscriptions.",
    multiprocess_mode="mostrecent",
)
mails: Final = Counter("doorbuster_mails", "Mails, by what became of them.", ["state"])
dead_letters: Final = Counter("doorbuster_dead_letters", "Given up after N tries.", ["source"])
stream_entries: Final = Gauge(
    "doorbuster_stream_entries",
    "Stream entries not drained yet, all sales.",
    multiprocess_mode="mostrecent",
)
outbox_messages: Final = Gauge(
    "doorbuster_outbox_messages", "Outbox rows waiting.", multiprocess_mode="mostrecent"
)
dispatched_to_nothing: Final = Counter(
    "doorbuster_dispatched_to_nothing",
    "Confirms, releases and restocks of what Redis does not know.",
    ["kind"],
)

refused: Final = Counter(
    "doorbuster_refused", "Requests that admission refused, by its reason.", ["reason"]
)
limit: Final = Gauge(
    "doorbuster_limit", "Requests that may be in work at once.", multiprocess_mode="livesum"
)
in_flight: Final = Gauge("doorbuster_in_flight", "Requests in work.", multiprocess_mode="livesum")
pace: Final = Gauge(
    "doorbuster_pace",
    "Reservations per second that every hop can store; +Inf while none is the limit.",
    multiprocess_mode="mostrecent",
)
hop_pace: Final = Gauge(
    "doorbuster_hop_pace",
    "Reservations per second that one hop can store.",
    ["hop"],
    multiprocess_mode="mostrecent",
)
breaker: Final = Gauge(
    "doorbuster_breaker",
    "Circuit breakers: 0 closed, 1 half open, 2 open.",
    ["server"],
    multiprocess_mode="livemax",
)
queue_waiting: Final = Gauge(
    "doorbuster_queue_waiting",
    "Visitors waiting in all rooms.",
    multiprocess_mode="mostrecent",
)
queue_tickets: Final = Counter(
    "doorbuster_queue_tickets", "Queue tickets, by what was said.", ["said"]
)
queue_eta_error: Final = Histogram(
    "doorbuster_queue_eta_error_ratio",
    "How far the promised wait was off, relative to the actual one.",
    buckets=(0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0),
)
reconciliation_differences: Final = Counter(
    "doorbuster_reconciliation_differences",
    "Differences between providers' statements and the payments here.",
    ["provider"],
)
