"""Where the Hub's host has no address, commands say so at once and name it."""

import socket

import pytest
from huggingface_hub import constants

from trainer.config.sections.model import ModelSection
from trainer.data.reading import locate
from trainer.delivery.hub.client import words_of
from trainer.delivery.predicting.saved_model import SavedModel
from trainer.errors import ModelError
from trainer.training.models.model import load_pretrained_config


@pytest.fixture
def no_network(monkeypatch):
    def unknown(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(locate, "getproxies", dict)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def no_request(no_network, monkeypatch):
    from huggingface_hub.utils import httpx

    def request(*args, **kwargs):
        raise AssertionError("a request was made")

    monkeypatch.setattr(httpx.Client, "send", request)


def test_pretrained_model_that_is_not_there_is_refused_without_a_request(no_request):
    with pytest.raises(
        ModelError, match=r"^model.name: 'user/missing' cannot be loaded: .*"
    ) as got:
        load_pretrained_config(ModelSection(name="user/missing"))
    assert str(got.value).endswith("The Hub cannot be reached: check the network and the name.")


def test_model_that_is_not_there_is_refused_without_a_request(no_request):
    with pytest.raises(
        ModelError,
        match=(
            "runs/missing: is not a folder here and not in the cache, and the Hub cannot be reached"
        ),
    ):
        SavedModel("runs/missing")


def test_push_without_a_network_names_the_host():
    from huggingface_hub.utils import httpx

    host = constants.ENDPOINT.partition("//")[2]
    assert (
        words_of(httpx.ConnectError("[Errno -2] Name or service not known"))
        == f"{host}: [Errno -2] Name or service not known."
    )
