"""The database of a study, and a lock that all of its workers share, on one machine or on several."""

import logging
import threading
import time
import warnings
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from filelock import FileLock
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, OptunaError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.study import StudyDirection
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import IntegrityError, ProgrammingError, SQLAlchemyError

# A worker tells this often that it lives, and is given up after so long a silence. In s.
HEARTBEAT, GRACE = 10, 60
# How often a cell is tried again whose worker died.
RETRIES = 3
# How long a server may take to answer a first time, in s, and the drivers that have this setting; others wait for as
# long as the network does, minutes where a host drops what is sent to it.
CONNECT_TIMEOUT = 10
TIMED_DRIVERS = ("psycopg", "psycopg2", "psycopg2cffi", "pymysql", "mysqldb")
# What to do about a database that cannot be used.
OTHER_URL = (
    "check the URL, such as postgresql://user@host/database, that the server answers and that its Python driver is "
    "installed, or leave it out for a file in the folder"
)


@contextmanager
def quiet() -> Generator[None]:
    """Without optuna's news and without its warnings that heartbeats are experimental, inside the ``with`` only."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def repeated(action: Callable[[], object], seconds: float) -> Generator[None]:
    """Do something again and again while the ``with`` lasts, in a thread.

    Args:
        action: What; may fail, since the next time may go well.
        seconds: Between two times.
    """
    done = threading.Event()

    def act() -> None:
        while not done.wait(seconds):
            with suppress(Exception):
                action()

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def connect(storage: str, way_out: str = OTHER_URL) -> RDBStorage:
    """Open a database, with its tables if it is new.

    Args:
        storage: URL, as SQLAlchemy knows them.
        way_out: What a user can do if it cannot be used.

    Returns:
        The database, whose trials are given back when their worker falls silent.

    Raises:
        ValueError: If there is no such database, or no driver for it.
    """
    shown, reason = storage, ""
    try:
        url = make_url(storage)
        shown = url.render_as_string(hide_password=True)
        patience = _patience(url)
        for attempt in range(3):
            try:
                with quiet():
                    return RDBStorage(
                        storage,
                        engine_kwargs=patience,
                        heartbeat_interval=HEARTBEAT,
                        grace_period=GRACE,
                        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=RETRIES),
                    )
            except (IntegrityError, ProgrammingError) as error:  # another worker made the tables at the same moment
                reason = _reason(error)
                time.sleep(attempt)
    except (SQLAlchemyError, OptunaError, ImportError, OSError, RuntimeError, ValueError) as error:
        reason = _reason(error)
    raise ValueError(f"storage {shown!r} cannot be used ({reason}); {way_out}")


@contextmanager
def database_errors() -> Generator[None]:
    """Say in one sentence that a database fails.

    Raises:
        ConnectionError: If it does.
    """
    try:
        yield
    except (SQLAlchemyError, OptunaError) as error:
        raise ConnectionError(
            f"the database of the study failed ({_reason(error)}); what is finished is kept: go on with the same call "
            "once it works again"
        ) from error


def _reason(error: BaseException) -> str:
    cause = error.__cause__ or error
    original = getattr(error, "orig", None) or getattr(cause, "orig", None) or cause
    return " ".join(str(original).split()).rstrip(".") or type(error).__name__


def _patience(url: URL) -> dict[str, object]:
    """How long to wait for a database: options of the engine."""
    if _is_file(url):
        # SQLite gives up after 5 s by default where another process writes.
        return {"connect_args": {"timeout": 60}}
    # What the user's URL says goes first.
    timed = url.get_driver_name() in TIMED_DRIVERS and "connect_timeout" not in url.query
    return {"pool_pre_ping": True, "connect_args": {"connect_timeout": CONNECT_TIMEOUT} if timed else {}}


def _is_file(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def opened(storage: str, name: str, way_out: str = OTHER_URL) -> tuple[RDBStorage, AbstractContextManager[object]]:
    """A database, and what lets one worker of a study in at a time.

    Args:
        storage: URL of the database.
        name: Of the study.
        way_out: What a user can do if it cannot be used.

    Raises:
        ValueError: If the database cannot be used.
    """
    try:
        url = make_url(storage)
        file = Path(url.database) if _is_file(url) and url.database not in (None, "", ":memory:") else None
    except SQLAlchemyError:
        file = None
    if file is not None and file.absolute().parent.is_dir():
        # Its users share a file system, where the lock of a process that died is free at once.
        lock = FileLock(f"{file}.lock")
        with lock:
            return connect(storage, way_out), lock
    database = connect(storage, way_out)
    return database, DatabaseLock(database, f"{name}.lock")


class DatabaseLock(AbstractContextManager["DatabaseLock"]):
    """A lock across machines: the entry of a name that can be in a database once.

    Its holder renews it as long as it lives. Who waits takes it over after ``patience`` seconds without a change: by
    that worker's own clock, since the clocks of machines differ.

    Args:
        database: Where the entry is.
        name: Of the entry, a study without trials.
        patience: Seconds.
    """

    def __init__(self, database: RDBStorage, name: str, patience: float = GRACE) -> None:
        self._database, self._name, self._patience = database, name, patience
        self._beating: AbstractContextManager[None] | None = None
        self._entry = 0

    def __enter__(self) -> "DatabaseLock":
        seen, since = None, time.monotonic()
        while True:
            with suppress(DuplicatedStudyError), quiet():
                self._entry = self._database.create_new_study([StudyDirection.MINIMIZE], self._name)
                break
            now = self._state()
            if now != seen:
                seen, since = now, time.monotonic()
            elif now is not None and time.monotonic() - since > self._patience:
                with suppress(KeyError):  # someone else was faster
                    self._database.delete_study(now[0])
            time.sleep(0.2)
        self._beating = repeated(self._renew, self._patience / 6)
        self._beating.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._beating is not None:
            self._beating.__exit__(None, None, None)
        with suppress(KeyError):  # taken over, after a silence of ours
            self._database.delete_study(self._entry)

    def _renew(self) -> None:
        self._database.set_study_user_attr(self._entry, "renewed", time.time())

    def _state(self) -> tuple[int, object] | None:
        """The entry that is there, and when it was renewed."""
        try:
            entry = self._database.get_study_id_from_name(self._name)
            return entry, self._database.get_study_user_attrs(entry).get("renewed")
        except KeyError:
            return None


__all__ = ["HEARTBEAT", "RETRIES", "DatabaseLock", "connect", "database_errors", "opened", "quiet", "repeated"]
