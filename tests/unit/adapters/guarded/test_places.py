"""Which URLs and addresses are refused before anybody looks at the DNS."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_async.adapters.guarded import Refused, target
from hermes_async.adapters.guarded.addresses import is_public
from hermes_async.adapters.webhook.errand import ERRAND
from tests.support.places import PUBLIC


@pytest.mark.parametrize(
    "address", [PUBLIC, "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


def test_a_public_place_may_be_posted_to() -> None:
    for url in ("https://example.com/hook", f"https://{PUBLIC}:8443/", "https://[2606:4700::1111]/x?y=@z"):
        assert not target(url, ERRAND, ()).allowed


def test_the_cure_is_named() -> None:
    with pytest.raises(Refused, match=r"put localhost:9000 into|names \(localhost:9000\)"):
        target("http://localhost:9000/", ERRAND, ())


@settings(deadline=None, database=None, max_examples=500)
@given(
    st.text(max_size=40)
    | st.builds(
        "{}//{}{}/{}".format,
        st.sampled_from(["https:", "HTTPS:", "http:", "https:\t", ""]),
        st.text("0123456789abxf.:[]@%-_\\/①。ß\u202e ", max_size=30) | st.ip_addresses().map(str),
        st.sampled_from(["", ":443", ":8443", ":22", ":", ":99999", "]"]),
        st.text(max_size=10),
    )
)
def test_whatever_a_url_looks_like_it_is_refused_or_leads_to_a_name_or_a_public_address(text: str) -> None:
    try:
        url = target(text, ERRAND, ()).url
    except Refused:
        return
    assert (url.scheme, url.user, url.password) == ("https", None, None)
    assert url.port in ERRAND.ports
    assert url.raw_host
    numeric = url.raw_host.replace(".", "").isdigit() or ":" in url.raw_host
    assert not numeric or is_public(url.raw_host)
