"""Encryption of what travels, as memberlist does it.

::

    version (1 byte) | nonce (12 bytes) | AES-GCM ciphertext | tag (16 bytes)

Version 1 is sent; in version 0, of memberlist's first protocol, the text is padded as in PKCS #7.
A nonce is random: of 2^32 messages under one key two have the same with a probability of 2^-33.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from quorumlog.errors import ConfigError, ForeignPeer, ProtocolError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SEAL_OVERHEAD_BYTES: Final = 29
NONCE_AT: Final = 1
BODY_AT: Final = 13

_NONCE_BYTES: Final = BODY_AT - NONCE_AT
_PADDED: Final = 0
_UNPADDED: Final = 1
_BLOCK_BYTES: Final = 16


class Keys(Protocol):
    """A ring of keys, which may change at any time."""

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The key to encrypt with, then the others to decrypt with; 16, 24 or 32 bytes each."""
        ...


class Seal:
    """Encrypts with the first key of a ring, decrypts with any.

    ``random_bytes`` gives so many bytes that nobody can foretell. Raises ``ConfigError`` when the
    library that encrypts is not installed.
    """

    def __init__(self, ring: Keys, random_bytes: Callable[[int], bytes]) -> None:
        self._ring = ring
        self._random_bytes = random_bytes
        self._keys: tuple[bytes, ...] = ()
        self._made: list[AESGCM] = []
        self._ciphers()

    def seal(self, data: bytes, associated: bytes) -> bytes:
        """``data`` encrypted, ``SEAL_OVERHEAD_BYTES`` longer; ``associated`` is authenticated."""
        nonce = self._random_bytes(_NONCE_BYTES)
        encrypted = self._ciphers()[0].encrypt(nonce, data, associated)
        return bytes([_UNPADDED]) + nonce + encrypted

    def open(self, sealed: bytes, associated: bytes) -> bytes:
        """What is in ``sealed``. Raises ``ForeignPeer`` when no key of the ring opens it."""
        from cryptography.exceptions import InvalidTag

        if len(sealed) < SEAL_OVERHEAD_BYTES or sealed[0] not in (_PADDED, _UNPADDED):
            raise ForeignPeer("what should be encrypted gossip is not")
        nonce, body = sealed[NONCE_AT:BODY_AT], sealed[BODY_AT:]
        for cipher in self._ciphers():
            try:
                text = cipher.decrypt(nonce, body, associated)
            except InvalidTag:
                continue
            return text if sealed[0] == _UNPADDED else _without_padding(text)
        raise ForeignPeer("no key of the ring opens what came")

    def _ciphers(self) -> "list[AESGCM]":
        """One for every key, made again when the ring has changed."""
        keys = self._ring.keys
        if keys != self._keys:
            self._made = [_aes_gcm(key) for key in keys]
            self._keys = keys
        return self._made


def _without_padding(text: bytes) -> bytes:
    count = text[-1] if text else 0
    if not 1 <= count <= _BLOCK_BYTES or text[-count:] != bytes([count]) * count:
        raise ProtocolError("the padding of an encrypted gossip packet is wrong")
    return text[:-count]


def _aes_gcm(key: bytes) -> "AESGCM":
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise ConfigError(
            "encrypted gossip needs the package cryptography: "
            "run `pip install 'quorumlog[encryption]'`"
        ) from error
    return AESGCM(key)
