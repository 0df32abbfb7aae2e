"""Addresses of this machine's own: who can reach them, and how they are written.

It imports nothing, for a probe that is asked every few seconds.
"""

import ipaddress

_UNSPECIFIED = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - looked for, not bound


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def loopback_of(bind_address: str) -> str:
    """The host by which this machine reaches a server bound to that address."""
    return _UNSPECIFIED.get(bind_address, bind_address)


def authority(host: str, port: int) -> str:
    """host:port, with brackets where the host is an address of IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
