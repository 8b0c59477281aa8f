"""Whether the service may start as it stands."""

from ipaddress import ip_address

from data.errors import WatchNextError
from service.keys import KeyStore
from service.settings import Settings


def check_start(settings: Settings, host: str) -> None:
    """Without a key the service is for this machine alone, unless told otherwise.

    Raises:
        WatchNextError: with what to do.
    """
    store = KeyStore(settings.home_folder())
    try:
        keys = store.all()
    finally:
        store.close()
    if keys or settings.allow_open or is_loopback(host):
        return
    raise WatchNextError(
        f"there is no API key, so anybody who reaches {host} could use the service: make one with "
        "`watchnext keys create --scope rank --scope events`, listen on 127.0.0.1, or set WATCHNEXT_ALLOW_OPEN=1"
    )


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
