"""The fixed parts of Binance's answers: error bodies, exchangeInfo envelope and filters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flows.replay.twin import Reply, json_reply

if TYPE_CHECKING:
    from contracts.names import CanonicalId
    from flows.replay.tape import InstrumentRules

_HTML = (
    "<html>\r\n<head><title>{0}</title></head>\r\n"
    "<body>\r\n<center><h1>{0}</h1></center>\r\n</body>\r\n</html>\r\n"
)
_TITLES = {
    200: "Service maintenance",
    403: "403 Forbidden",
    404: "404 Not Found",
    408: "408 Request Timeout",
    502: "502 Bad Gateway",
}
_RESTRICTED = (
    "Service unavailable from a restricted location according to 'b. Eligibility' in "
    "https://www.binance.com/en/terms. Please contact customer service if you believe you "
    "received this message in error."
)
_TIMED_OUT = (
    "Timeout waiting for response from backend server. "
    "Send status unknown; execution status unknown."
)
_FAILURES = {
    451: (0, _RESTRICTED),
    500: (-1000, "An unknown error occurred while processing the request."),
    503: (-1007, _TIMED_OUT),
}
_ORDER_TYPES = ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT",
                "TAKE_PROFIT_LIMIT"]  # fmt: skip


def error(code: int, message: str, status: int = 400) -> Reply:
    """Return an error in the venue's envelope."""
    return json_reply({"code": code, "msg": message}, status)


def illegal(name: str, legal: str) -> Reply:
    """Return the refusal of a parameter whose characters are not legal."""
    message = f"Illegal characters found in parameter '{name}'; legal range is '{legal}'."
    return error(-1100, message)


def html(status: int) -> Reply:
    """Return a page as the venue's gateways send it."""
    return Reply(status, _HTML.format(_TITLES[status]), content_type="text/html")


def failure(status: int) -> Reply:
    """Return what the venue sends with a status of its own trouble."""
    if status in _FAILURES:
        return error(*_FAILURES[status], status=status)
    return html(status)


def refusal(status: int, retry_after_seconds: int, until_millis: int, limit: int) -> Reply:
    """Return the answer to who goes beyond the limits (429) or is banned (418)."""
    if status == 418:
        message = (
            f"Way too much request weight used; IP banned until {until_millis}. "
            "Please use WebSocket Streams for live updates to avoid bans."
        )
    else:
        message = (
            f"Too much request weight used; current limit is {limit} request weight per "
            "1 MINUTE. Please use WebSocket Streams for live updates to avoid polling the API."
        )
    reply = error(-1003, message, status)
    reply.headers["Retry-After"] = str(retry_after_seconds)
    return reply


def exchange_info(now: int, symbols: list[dict[str, Any]], weight_limit: int) -> dict[str, Any]:
    """Return the envelope of exchangeInfo."""
    limits = (
        ("REQUEST_WEIGHT", "MINUTE", 1, weight_limit),
        ("ORDERS", "SECOND", 10, 100),
        ("ORDERS", "DAY", 1, 200_000),
        ("RAW_REQUESTS", "MINUTE", 5, 300_000),
    )
    return {
        "timezone": "UTC",
        "serverTime": now,
        "rateLimits": [
            {"rateLimitType": kind, "interval": interval, "intervalNum": count, "limit": limit}
            for kind, interval, count, limit in limits
        ],
        "exchangeFilters": [],
        "symbols": symbols,
    }


def symbol(name: str, canonical_id: CanonicalId, rules: InstrumentRules | None) -> dict[str, Any]:
    """Return one listing; where the tape holds no rules, the values of its filters are null."""
    return {
        "symbol": name,
        "status": "TRADING",
        "baseAsset": canonical_id.base,
        "baseAssetPrecision": 8,
        "quoteAsset": canonical_id.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": _ORDER_TYPES,
        "icebergAllowed": True,
        "ocoAllowed": True,
        "otoAllowed": True,
        "opoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": True,
        "cancelReplaceAllowed": True,
        "amendAllowed": True,
        "pegInstructionsAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": True,
        "filters": _filters(rules),
        "permissions": [],
        "permissionSets": [["SPOT", "MARGIN"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH"],
    }


def _filters(rules: InstrumentRules | None) -> list[dict[str, Any]]:
    tick, lot, notional = (
        (rules.tick_size, rules.lot_size, rules.min_notional) if rules else (None, None, None)
    )
    known = rules is not None
    return [
        {
            "filterType": "PRICE_FILTER",
            "minPrice": tick,
            "maxPrice": "1000000.00000000" if known else None,
            "tickSize": tick,
        },
        {
            "filterType": "LOT_SIZE",
            "minQty": lot,
            "maxQty": "9000.00000000" if known else None,
            "stepSize": lot,
        },
        {"filterType": "ICEBERG_PARTS", "limit": 10 if known else None},
        {
            "filterType": "MARKET_LOT_SIZE",
            "minQty": "0.00000000" if known else None,
            "maxQty": "100.00000000" if known else None,
            "stepSize": "0.00000000" if known else None,
        },
        {
            "filterType": "NOTIONAL",
            "minNotional": notional,
            "applyMinToMarket": True if known else None,
            "maxNotional": "9000000.00000000" if known else None,
            "applyMaxToMarket": False if known else None,
            "avgPriceMins": 5 if known else None,
        },
        {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200 if known else None},
        {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": 5 if known else None},
    ]
