"""Where things live: environment variables with embedded defaults, so an experiment file names no
address.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from orchestrator.storage.stores.local import LocalStore
from orchestrator.storage.stores.opening import open_store


class Settings(BaseSettings):
    """``VITACLIP_STORE``, ``VITACLIP_TRACKER``, ``MLFLOW_TRACKING_URI`` and ``RAY_ADDRESS``; empty
    is not set. No credentials.
    """

    model_config = SettingsConfigDict(env_ignore_empty=True)

    store: str = Field("store", validation_alias="VITACLIP_STORE")
    tracker: str = Field("mlflow", validation_alias="VITACLIP_TRACKER")
    tracking_uri: str = Field("sqlite:///mlflow.db", validation_alias="MLFLOW_TRACKING_URI")
    ray_address: str | None = Field(None, validation_alias="RAY_ADDRESS")

    @property
    def store_uri(self) -> str:
        """The store's address as any process of this machine understands it: local folders are
        absolute.
        """
        store = open_store(self.store)
        return str(Path(store.root)) if isinstance(store, LocalStore) else store.uri


def without_password(text: str, uri: str | None = None) -> str:
    """The text without the password that ``uri`` (default: the text is a URI itself) may hold."""
    password = urlsplit(uri or text).password
    return text.replace(password, "***").replace(unquote(password), "***") if password else text
