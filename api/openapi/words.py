"""What the document says of things that many calls share. Knows no call."""

from typing import Final

from api.spec import Access

TITLE: Final = "Doorbuster"
SEARCH_CHARACTERS_MAX: Final = 100  # Of what the page is searched for.
ABOUT: Final = """\
A flash-sale order engine and the shop around it. JSON in, JSON out; times are RFC 3339, in UTC;
money is `{"amount_minor": 129900, "currency": "CNY"}`: whole numbers of the currency's smallest
unit; ids are opaque texts. Unknown fields are refused.

Every refusal is a problem (RFC 9457, `application/problem+json`) with a `code` that keeps its
meaning. `Accept-Language: zh-CN` gets titles and details in Chinese; codes are the same in every
language. 425, 429 and 503 say in `Retry-After` when to ask again.
"""

TAGS: Final = {
    "Users": "Accounts: registering, verifying the e-mail, passwords.",
    "Logins with another provider": "OpenID Connect: sent there, and back with a session.",
    "Sessions": "Logging in, staying logged in, logging out, here or everywhere.",
    "Addresses": "Where orders are sent to.",
    "Catalogue": "Categories, products and their SKUs; finding them in Chinese and English.",
    "Reviews": "What buyers say of what they bought.",
    "Sales": "Timed offers of some SKUs, with their live stock.",
    "Queue": "The waiting room of a sale: a ticket, one's place, the proof that the draw was fair.",
    "Reservations": "Units taken out of what is available until a deadline; stored, they are an order.",
    "Cart": "What somebody means to buy, as a guest or signed in, what it costs, and the checkout.",
    "Promotions": "Coupons and other discounts.",
    "Points": "Earned on what was paid, spent at the checkout.",
    "Shipping": "Methods and fees.",
    "Orders": "One's own orders, from payment to delivery.",
    "Payments": "Paying orders, refunds, and what providers tell us.",
    "Returns": "Sending back what was bought.",
    "Invoices": "The invoice of an order.",
    "Rates": "Exchange rates, with their dates.",
    "Carriers": "What carriers tell of parcels.",
    "Operations": "For those who run the engine, and for tools that read this contract.",
    "Admin: sales": "Making sales, opening and closing them, restocking; the audit log.",
    "Admin: admission": "Waiting rooms, and who is let in past all rates, or not at all.",
    "Admin: catalogue": "Categories, products, prices, ordinary stock; import and export.",
    "Admin: promotions": "Coupons and discounts: making, changing and ending them.",
    "Admin: points": "The rules of points, and the points of users.",
    "Admin: orders": "Orders of all buyers.",
    "Admin: fulfilment": "What is to be sent, and sending it.",
    "Admin: shipping": "Methods, zones and fees.",
    "Admin: returns": "Deciding on returns.",
    "Admin: payments": "Refunds, whoever paid.",
    "Admin: reconciliation": "Providers' bills against our payments.",
    "Admin: rates": "Setting exchange rates.",
    "Admin: reviews": "Moderation and replies.",
    "Admin: users": "Accounts: finding, blocking, roles.",
    "Admin: mails": "What was mailed, and what did not leave.",
    "Admin: events": "What other systems are told of, and what did not reach them.",
}

WHO: Final = {
    Access.PUBLIC: "",
    Access.VISITOR: "For anyone; a token, if there is one, says who.",
    Access.SELF: "For whoever has a valid token.",
    Access.CALLER: "For whoever has a valid token.",
    Access.SUPPORT: "For support and operators.",
    Access.OPERATOR: "For operators.",
}

PATH_PARTS: Final = {
    "sale": "The sale's id, as in `double-11`.",
    "order": "The order's id, as its reservation's: `<sale>.<reservation>`.",
    "reservation": "The reservation's id: `<sale>.<reservation>`.",
    "sku": "The SKU, as in `phone-black`.",
    "provider": "The payment provider's name.",
    "rule": "The access rule's number.",
}

FIELDS: Final = {
    "limit": "How many at most.",
    "after": "The `next` of an earlier page.",
    "currency": "ISO 4217, as in CNY.",
    "sale": "Only those of this sale.",
}
