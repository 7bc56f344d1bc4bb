"""Why a server of the cluster cannot be used, in one line for the operator, without anything secret."""

from __future__ import annotations

import socket
import ssl

from candleshm.cluster.settings import ClusterSettings
from candleshm.system.log_text import printable, without_credentials

__all__ = ["is_refusal", "reason_of"]

# Codes of OpenSSL: of a certificate that is of another host or address, and of one that nobody known signed.
OTHER_NAME = {62, 64}
UNKNOWN_AUTHORITY = {2, 7, 18, 19, 20, 21, 27}


def is_refusal(error: BaseException) -> bool:
    """Return whether trying again will not help: credentials, or a certificate that is not trusted."""
    return isinstance(error, ssl.SSLError) or "authorization violation" in str(error).lower()


def reason_of(error: BaseException, settings: ClusterSettings) -> str:
    """Return the reason, and what to do about it where that is known."""
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = _advice_about(error, settings)
        return f"its certificate is not trusted ({error.verify_message.rstrip('.')}){advice}"
    if isinstance(error, ssl.SSLError):
        return f"TLS fails: {error.reason or error}"
    if isinstance(error, socket.gaierror):
        return f"the host is not known ({error.strerror})"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    if isinstance(error, TimeoutError):
        return "no response in time"
    if type(error).__name__ in {"ServiceUnavailableError", "NoRespondersError"}:
        return "JetStream is not enabled there"
    # Of errors of JetStream the description says it; the rest is codes.
    if isinstance(description := getattr(error, "description", None), str):
        return printable(description)
    text = printable(without_credentials(" ".join(str(error).split())))
    if "authorization violation" in text.lower():
        return f"it refuses {_credentials_of(settings)}"
    return text.removeprefix("nats: ") or type(error).__name__


def _advice_about(error: ssl.SSLCertVerificationError, settings: ClusterSettings) -> str:
    """Return what to do about a certificate that is not trusted, where the error says what is wrong with it."""
    if error.verify_code in OTHER_NAME:
        return "; name the server as its certificate does"
    if error.verify_code not in UNKNOWN_AUTHORITY:
        return ""
    if settings.authority is None:
        return "; give the authority by --cluster-ca FILE"
    return f"; the authority of {settings.authority} did not sign it"


def _credentials_of(settings: ClusterSettings) -> str:
    if settings.credentials is not None:
        return f"the credentials of {settings.credentials}"
    if settings.user is not None:
        return (
            f"user `{printable(settings.user)}` with that password; check cluster_user and CANDLESHM_CLUSTER_PASSWORD"
        )
    if settings.token is not None:
        return "the token; check CANDLESHM_CLUSTER_TOKEN"
    return (
        "who shows no credentials; set CANDLESHM_CLUSTER_USER and CANDLESHM_CLUSTER_PASSWORD, CANDLESHM_CLUSTER_TOKEN, "
        "or give --cluster-credentials FILE"
    )
