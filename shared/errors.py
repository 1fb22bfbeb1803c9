"""Errors of Vedette and their exit codes.

    VedetteError                  1   base of all errors
    ├── SettingsError             3   a configuration file, variable or option is wrong
    ├── DataError                 4   input data cannot be used
    │   ├── UnreadableInputError  4   an input is damaged or cannot be read: on a device only its source fails
    │   ├── SampleRejected        -   one sample cannot be used: counted, the agent continues
    │   └── SignInError           -   an account of a provider may not sign in: its page says why
    ├── BundleError               5   a bundle cannot be used
    │   ├── BundleIntegrityError  5   its bytes are not what was signed
    │   │   └── UntrustedBundleError 5  no trusted key signed it
    │   ├── BundleMismatchError   5   valid, but made for another use
    │   └── RolloutError          5   its rollout does not allow this now
    ├── ParityError               6   the artefacts of a bundle disagree
    ├── CertificateError          7   a key or certificate is missing, expired or foreign
    ├── EnrolmentError            8   a token is spent, expired or wrong
    ├── ConnectionFailedError     9   the service or server cannot be reached
    ├── StorageError              10  a disk is full or a store is damaged
    │   ├── FileNotWrittenError   10  a file could not be written; also an OSError
    │   ├── StoreBusyError        10  the store did not answer in time
    │   ├── RefusedRowError       10  the store does not take the values of a row
    │   └── FileLockedError       10  another process holds the lock on a file
    ├── PortInUseError            11  another process listens there
    ├── EngineError               12  an inference engine failed or is missing
    │   └── WorkerCrashedError    12  a call ended the threads that made it
    ├── MissingExtraError         13  an extra of Vedette is not installed
    ├── FederationError           14  a federated round failed
    ├── DemoError                 15  the demo failed
    ├── NoAnswerError             16  a child process gave no valid answer
    └── JudgementError            17  a trained bundle is below the bounds of --strict, or worse than the running one

A message names the event, its object and the remedy. Exit code 2 is a command line that cannot be parsed.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar


class VedetteError(Exception):
    """Base of all errors that are reported to the user in one line."""

    exit_code: ClassVar[int] = 1
    facts: Mapping[str, object] = MappingProxyType({})  # further values for --json


class SettingsError(VedetteError):
    """A configuration file, environment variable or option is wrong."""

    exit_code = 3


class DataError(VedetteError):
    """Input data cannot be used."""

    exit_code = 4


class UnreadableInputError(DataError):
    """An input is there, but damaged, busy or not readable for this user; on a device only its source fails."""


class SampleRejected(DataError):
    """One sample cannot be used; it is counted with its reason and never counts as normal."""


class SignInError(DataError):
    """An account of an OpenID Connect provider may not sign in; the message is shown on the page."""


class BundleError(VedetteError):
    """A bundle cannot be used."""

    exit_code = 5


class BundleIntegrityError(BundleError):
    """A bundle's bytes are not what was signed, or the signer is not trusted."""


class UntrustedBundleError(BundleIntegrityError):
    """No trusted key signed a bundle's manifest, or the manifest was changed after signing."""


class BundleMismatchError(BundleError):
    """A bundle is valid, but made for another modality, device or version."""


class RolloutError(BundleError):
    """A rollout of the bundle's name does not allow this now."""


class ParityError(VedetteError):
    """The artefacts of a bundle disagree by more than its tolerances."""

    exit_code = 6


class CertificateError(VedetteError):
    """A key or certificate is missing, expired or foreign."""

    exit_code = 7


class EnrolmentError(VedetteError):
    """A token is spent, expired or wrong."""

    exit_code = 8


class ConnectionFailedError(VedetteError):
    """The service or server cannot be reached."""

    exit_code = 9


class StorageError(VedetteError):
    """A disk is full, or a store is damaged."""

    exit_code = 10


class StoreBusyError(StorageError):
    """Too many readers wait for the store, or a query took longer than its deadline; a later try may succeed."""


class RefusedRowError(StorageError):
    """The store does not take the values of a row; a later try fails in the same way."""


class FileNotWrittenError(StorageError, OSError):
    """A file could not be written; code that handles OSError handles this too."""


class FileLockedError(StorageError):
    """Another process holds the lock on a file.

    Attributes:
        holder: Process id of the other process as text, or "unknown".
    """

    def __init__(self, message: str, holder: str = "unknown") -> None:
        super().__init__(message)
        self.holder = holder


class PortInUseError(VedetteError):
    """Another process listens on the port."""

    exit_code = 11


class EngineError(VedetteError):
    """An inference engine failed or is missing."""

    exit_code = 12


class WorkerCrashedError(EngineError):
    """A call ended the thread that made it, more than once."""


class MissingExtraError(VedetteError):
    """An extra of Vedette is not installed."""

    exit_code = 13


class FederationError(VedetteError):
    """A federated round failed."""

    exit_code = 14


class DemoError(VedetteError):
    """The demo failed."""

    exit_code = 15


class NoAnswerError(VedetteError):
    """A child process gave no valid answer.

    Attributes:
        child_exit_code: Exit code of the child; None if it still ran when its time was over.
    """

    exit_code = 16

    def __init__(self, message: str, child_exit_code: int | None = None) -> None:
        super().__init__(message)
        self.child_exit_code = child_exit_code


class JudgementError(VedetteError):
    """A trained bundle is below the bounds of `--strict`, or a retrained one worse than the running bundle.

    `judgement`: the judgement, or the comparison, as JSON values.
    """

    exit_code = 17

    def __init__(self, message: str, judgement: dict[str, object] | None = None) -> None:
        super().__init__(message)
        self.facts = {"judgement": judgement or {}}
