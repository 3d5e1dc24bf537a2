"""Payment gateways to practise with: real HTTP, real signatures, real webhooks, no money.

One speaks a plain protocol of our own; others speak Alipay's, WeChat Pay's and Stripe's, and misbehave on
request (`mischief`). They run in a process of their own and remember their charges in SQLite files.
"""

from api.sandbox.gateway import run_sandbox

__all__ = ["run_sandbox"]
