"""Wrong access tokens, one after the other."""

from __future__ import annotations

from service.auth.throttle import BURST, MAX_ADDRESSES, SECONDS_EACH, FailureThrottle, network_of
from tests.auth.conftest import FakeClock


def test_after_a_burst_failures_are_let_through_at_their_pace(clock: FakeClock) -> None:
    throttle = FailureThrottle(clock)
    assert [throttle.fail("192.0.2.1") for _ in range(BURST)] == [0] * BURST
    assert throttle.fail("192.0.2.1") == SECONDS_EACH
    clock.now += SECONDS_EACH
    assert throttle.fail("192.0.2.1") == 0
    assert throttle.fail("192.0.2.1") == SECONDS_EACH


def test_trying_on_does_not_make_the_wait_longer(clock: FakeClock) -> None:
    throttle = FailureThrottle(clock)
    waits = [throttle.fail("192.0.2.1") for _ in range(500)]
    assert max(waits) == SECONDS_EACH


def test_another_address_is_not_held_liable(clock: FakeClock) -> None:
    throttle = FailureThrottle(clock)
    for _ in range(BURST + 1):
        throttle.fail("192.0.2.1")
    assert throttle.fail("192.0.2.2") == 0


def test_an_ipv6_network_is_one_address() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1")
    assert network_of("2001:db8::1") != network_of("2001:db8:0:1::1")
    assert network_of("192.0.2.1") == "192.0.2.1"
    assert network_of("::ffff:192.0.2.1") != network_of("::ffff:192.0.2.2")
    assert network_of("unix") == "unix"


def test_many_addresses_do_not_fill_memory(clock: FakeClock) -> None:
    throttle = FailureThrottle(clock)
    for number in range(MAX_ADDRESSES + 5):
        throttle.fail(str(number))
    assert len(throttle._paid_until) == MAX_ADDRESSES
