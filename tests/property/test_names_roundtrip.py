from datetime import date

from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import TidemarkError
from contracts.names import CanonicalId, InstrumentId, MarketType, Venue

plain = st.from_regex(r"[A-Z0-9]{1,8}", fullmatch=True)
assets = plain | st.from_regex(
    r"[A-Za-z0-9$_\u4e00-\u4e20]{1,6}(\.[A-Za-z0-9]{1,3})?", fullmatch=True
)
# ccxt writes the year with two digits.
expiries = st.dates(date(2000, 1, 1), date(2068, 12, 31))
strikes = st.from_regex(r"[1-9][0-9]{0,5}(\.[0-9]{1,3})?", fullmatch=True)


@st.composite
def canonical_ids(draw):
    market = draw(st.sampled_from(MarketType))
    settle = None if market is MarketType.SPOT else draw(st.none() | assets)
    dated = market in (MarketType.FUTURE, MarketType.OPTION)
    option = market is MarketType.OPTION
    return CanonicalId(
        draw(assets), draw(assets), market, settle,
        draw(expiries) if dated else None,
        draw(strikes) if option else None,
        draw(st.sampled_from("CP")) if option else None,
    )  # fmt: skip


@given(canonical_ids())
def test_canonical_ids_survive_both_spellings(name):
    assert CanonicalId.parse(str(name)) == name
    assert CanonicalId.parse(name.ccxt) == name


@given(canonical_ids(), st.sampled_from(Venue), st.integers(1, 20))
def test_instrument_ids_survive(name, venue, listing):
    instrument = InstrumentId(name, venue, listing)
    assert InstrumentId.parse(str(instrument)) == instrument


@given(st.text(max_size=30))
def test_any_text_is_a_name_or_an_error_of_ours(text):
    for kind in (CanonicalId, InstrumentId):
        try:
            found = kind.parse(text)
        except TidemarkError:
            continue
        assert kind.parse(str(found)) == found
