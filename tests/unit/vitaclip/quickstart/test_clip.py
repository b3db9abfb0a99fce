"""The shipped tiny CLIP: whole, loadable by open_clip, and it sees and names what the page about it
says.
"""

from __future__ import annotations

import json

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import CLIP
from torch.nn import functional as F

from vitaclip.config import BackboneConfig
from vitaclip.model.backbone import load_backbone
from vitaclip.model.clip_weights import read_clip_weights
from vitaclip.quickstart import pictures, pretrain
from vitaclip.quickstart.pictures import Backgrounds, sample_still
from vitaclip.quickstart.pretrain import MODEL_CONFIG, TOKEN_IDS, WEIGHTS, encode_captions
from vitaclip.quickstart.render import sample_track
from vitaclip.quickstart.world import BASE_ACTIONS, HELD_OUT_ACTIONS, action_name


@pytest.fixture(scope="module")
def clip() -> CLIP:
    return load_backbone(BackboneConfig(name="quickstart-tiny", pretrained="quickstart")).clip


def trained(clip: CLIP) -> CLIP:
    """The same weights over the short vocabulary that ``pretrain`` works with."""
    state = clip.state_dict()
    state["token_embedding.weight"] = state["token_embedding.weight"][TOKEN_IDS]
    short = pretrain.build(json.loads(MODEL_CONFIG.read_text()))
    short.load_state_dict(state)
    return short.eval()


def test_weights_hold_every_key_of_open_clips_model() -> None:
    fresh = CLIP(**json.loads(MODEL_CONFIG.read_text()))
    fresh.load_state_dict(read_clip_weights(WEIGHTS).tensors, strict=True)
    assert WEIGHTS.stat().st_size < 4e6


def test_every_word_of_every_class_name_has_a_trained_embedding(clip: CLIP) -> None:
    for action in (*BASE_ACTIONS, *HELD_OUT_ACTIONS):
        tokens = open_clip.tokenizer._tokenizer.encode(action_name(action))
        assert set(tokens) <= set(TOKEN_IDS)
        assert (clip.token_embedding.weight[tokens].abs().sum(dim=1) > 0).all()


def test_text_features_equal_those_of_open_clips_tokenizer(clip: CLIP) -> None:
    names = ["moving left and growing", "a red circle at the top left"]
    reference = CLIP(**json.loads(MODEL_CONFIG.read_text()))
    reference.load_state_dict(clip.state_dict())
    with torch.no_grad():
        expected = reference.encode_text(open_clip.SimpleTokenizer(context_length=77)(names))
        found = encode_captions(trained(clip), names)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_figures_reach_their_bounds(clip: CLIP) -> None:
    """Bounds well below the measured figures; a wrong weight or a changed renderer breaks them."""
    figures = pretrain.figures(trained(clip), seed=7, num_pictures=240)
    found = {name.split(" (")[0]: value for name, value in figures.items()}
    assert found["colour"] > 0.9
    assert found["position"] > 0.6
    assert found["shape and colour, seen pairs"] > 0.2
    assert found["trails of base actions"] > 0.3
    assert found["trails of held-out actions"] > 0.35


def test_no_caption_or_trail_of_training_shows_a_held_out_action() -> None:
    rng = np.random.default_rng(0)
    motions = {frozenset(pictures.sample_motions(rng)) for _ in range(2000)}
    assert not motions & {frozenset(action) for action in HELD_OUT_ACTIONS}
    assert motions >= {frozenset(action) for action in BASE_ACTIONS}


def test_no_still_of_training_shows_a_held_out_pair() -> None:
    rng = np.random.default_rng(0)
    backgrounds = Backgrounds(16, rng)
    labels = [sample_still(backgrounds, rng).labels for _ in range(1000)]
    shown = {(pictures.SHAPES[label["shape"]], pictures.COLORS[label["color"]]) for label in labels}
    assert len(shown) == 36
    assert not shown & pictures.HELD_OUT_PAIRS


def test_a_trail_is_strongest_where_the_object_is_last() -> None:
    rng = np.random.default_rng(3)
    track = sample_track(("moving right",), pictures.NUM_EXPOSURES, rng)
    alpha = pictures.long_exposure("circle", track, 64)[0]
    y, places = int(track.y[0] * 64), [int(x * 64) for x in (track.x[0] - 0.04, track.x[-1] + 0.04)]
    assert alpha[y, places[1]] > 1.5 * alpha[y, places[0]] > 0


def test_training_lowers_the_loss_and_repeats_with_the_seed() -> None:
    losses: list[list[float]] = [[], []]
    for run in losses:
        pretrain.train(0, num_steps=6, on_step=lambda _, loss, run=run: run.append(loss))  # type: ignore[misc]
    assert losses[0] == losses[1]
    assert losses[0][-1] < losses[0][0] - 1


def test_learned_context_before_a_name_leaves_its_meaning(clip: CLIP) -> None:
    """Names behind random context vectors are nearest to themselves: class-specific prompts start
    from there.
    """
    names = [action_name(action) for action in (*BASE_ACTIONS, *HELD_OUT_ACTIONS)]
    short = trained(clip)
    torch.manual_seed(0)
    with torch.no_grad():
        plain, behind = (
            F.normalize(encode_captions(short, names, num_context=n), dim=-1) for n in (0, 8)
        )
    assert (behind @ plain.T).argmax(dim=1).tolist() == list(range(len(names)))
