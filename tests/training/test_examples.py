"""What is drawn: inference's sections with the truth as their history, the same wherever and whenever they are drawn."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from support import clips

from framepack_core.layout import PRESETS
from framepack_core.orders import ORDERS
from framepack_core.training.cache import ClipCache, write_clip
from framepack_core.training.examples import Choices, Examples, Recipe, recipes
from framepack_core.training.history import Codebook

AXES, THETA = (16, 56, 56), 256.0
ALL = tuple(PRESETS)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> ClipCache:
    return ClipCache(clips.write_cache(tmp_path_factory.mktemp("cache"), lengths=(29, 20, 56, 29)))


def examples(cache: ClipCache, layouts=ALL, orders=tuple(ORDERS), seed=3, held_out=0, **choices) -> Examples:
    return Examples(cache, Choices(recipes(layouts, orders), **choices), seed, AXES, THETA, held_out)


def truth(cache: ClipCache, batch_row_x0: torch.Tensor, target) -> torch.Tensor:
    """The clip that has these frames at these places."""
    return next(c.latents.float() for c in cache if c.latents.shape[1] > max(target)
                and torch.equal(c.latents[:, list(target)].float(), batch_row_x0))  # fmt: skip


def test_every_layout_is_drawn_in_every_order_it_fits(cache):
    drawn = {examples(cache).draw(step, 0)[0].recipe for step in range(150)}

    assert {(recipe.layout, recipe.order) for recipe in drawn} == {
        (name, order) for name in ALL for order in ORDERS if ORDERS[order].fits(name)
    }


def test_weights_say_how_often():
    assert recipes(["framepack:3", "f1"], ["inverted", "forward:2"]) == (
        Recipe("framepack", "inverted", 3.0),
        Recipe("f1", "forward", 2.0),
    )


def test_every_section_of_a_plan_is_drawn_and_plans_as_long_as_the_clips_allow(cache):
    found = [examples(cache, ["f1"], ["forward"], sections=(2, 9)).draw(step, 0)[0] for step in range(300)]

    assert {draw.frames for draw in found} == {1 + 9 * sections for sections in range(2, 7)}
    assert {draw.section.number for draw in found if draw.frames == 28} == {0, 1, 2}


@pytest.mark.parametrize("order", ["inverted", "forward"])
def test_the_section_that_is_sampled_first_is_drawn_as_often_as_asked(cache, order):
    drawn = examples(cache, [ORDERS[order].layout], [order], sections=(2, 2), first=0.6)
    numbers = Counter(drawn.draw(step, 0)[0].section.number for step in range(400))

    assert set(numbers) == {0, 1}
    assert 0.72 < numbers[0] / 400 < 0.88, "asked for, and half of the others by chance"


def test_both_paddings_of_the_inverted_order_are_drawn(tmp_path):
    drawn = examples(ClipCache(clips.write_cache(tmp_path, lengths=(55,))), ["framepack"], sections=(6, 6))
    blanks = {draw.section.indices[0] for draw in (drawn.draw(step, 0)[0] for step in range(60)) if draw.section.number == 0}

    assert blanks == {1 + 3 * 9, 1 + 5 * 9}


def test_the_context_is_the_truth_of_frames_done_before_and_zero_elsewhere(cache):
    drawn = examples(cache, caption_dropout=0, end_probability=0.5)
    for step in range(60):
        batch = drawn.batch(step, 0, [0])
        section = batch.draw.section
        latents = truth(cache, batch.x0[0], section.target)
        for group, shown in zip(section.context, batch.inputs["context"], strict=True):
            for place, frame in enumerate(group.frames):
                expected = torch.zeros_like(shown[0, :, 0]) if frame is None else latents[:, frame]
                assert torch.equal(shown[0, :, place], expected)


def test_end_frames_are_shown_where_the_order_has_a_place_for_them(cache):
    found = [examples(cache, ["framepack", "f1", "endpoints"], sections=(2, 2), end_probability=1.0).draw(step, 0)[0]
             for step in range(60)]  # fmt: skip

    assert all(draw.end == (draw.recipe.order == "inverted") for draw in found)
    assert {draw.known for draw in found if draw.recipe.order == "endpoints"} == {frozenset((0, 19))}
    seen = {frame for draw in found if draw.end for group in draw.section.context for frame in group.frames}
    assert 19 in seen


def test_the_noisy_latents_lie_between_truth_and_noise(cache):
    batch = examples(cache).batch(5, 1, range(3))
    sigma = batch.inputs["timestep"].view(-1, 1, 1, 1, 1) / 1000

    torch.testing.assert_close(batch.inputs["latents"], (1 - sigma) * batch.x0 + sigma * batch.noise)
    assert len(set(sigma.flatten().tolist())) == 3


def test_a_draw_depends_on_its_place_alone(cache):
    whole = examples(cache).batch(7, 2, range(4))
    later = examples(cache)
    later.batch(0, 0, range(4))
    share = later.batch(7, 2, range(2, 4))

    assert share.draw == whole.draw
    assert torch.equal(share.x0, whole.x0[2:])
    assert torch.equal(share.inputs["latents"], whole.inputs["latents"][2:])
    assert torch.equal(share.inputs["pooled"], whole.inputs["pooled"][2:])
    for part, all_of_it in zip(share.inputs["context"], whole.inputs["context"], strict=True):
        assert torch.equal(part, all_of_it[2:])


@pytest.mark.parametrize("other", [{"seed": 4}, {"step": 8}, {"micro": 1}])
def test_other_places_draw_other_things(cache, other):
    place = {"step": 7, "micro": 2} | {key: value for key, value in other.items() if key != "seed"}
    drawn = examples(cache, ["f1"], seed=other.get("seed", 3)).batch(**place, samples=range(1))

    assert not torch.equal(drawn.noise, examples(cache, ["f1"]).batch(7, 2, range(1)).noise[:, :, : drawn.noise.shape[2]])


def test_corruption_spares_the_given_frames(cache):
    drawn = examples(cache, ["f1"], corruption=1.0, caption_dropout=0)
    for step in range(20):
        batch = drawn.batch(step, 0, [0])
        latents = truth(cache, batch.x0[0], batch.draw.section.target)
        for group, shown in zip(batch.draw.section.context, batch.inputs["context"], strict=True):
            for place, frame in enumerate(group.frames):
                if frame is not None:
                    assert torch.equal(shown[0, :, place], latents[:, frame]) == (frame == 0)


def test_a_codebook_leaves_its_centres_only(cache):
    centres = torch.tensor([[1.0] * 16, [-1.0] * 16])
    batch = examples(cache, ["f1"], codebook=Codebook(centres)).batch(0, 0, [0])

    assert {value for shown in batch.inputs["context"] for value in shown.unique().tolist()} <= {-1.0, 0.0, 1.0}


def test_captions_are_dropped_as_often_as_asked(cache):
    drawn = examples(cache, ["f1"], caption_dropout=0.5)
    empty = cache.empty[1].float()
    dropped = Counter(torch.equal(drawn.batch(step, 0, [0]).inputs["pooled"][0], empty) for step in range(200))

    assert 70 < dropped[True] < 130


def test_each_section_is_told_the_caption_of_its_time(tmp_path):
    """A clip whose caption changes after 9 of 18 frames."""
    (clip,) = ClipCache(clips.write_cache(tmp_path / "plain", lengths=(19,)))
    later = clip.text + 1, clip.pooled + 1
    write_clip(tmp_path, "changing", replace(clip, later={10: later}))
    drawn = examples(ClipCache(tmp_path), ["f1"], ["forward"], caption_dropout=0.0, sections=(2, 2))

    batches = [drawn.batch(step, 0, [0]) for step in range(20)]

    assert {batch.draw.section.target[0] for batch in batches} == {1, 10}
    for batch in batches:
        text, pooled = (clip.text, clip.pooled) if batch.draw.section.target[0] == 1 else later
        assert torch.equal(batch.inputs["text"][0], text.float()) and torch.equal(batch.inputs["pooled"][0], pooled.float())


def test_texts_of_different_lengths_are_padded_and_masked(cache):
    mixed = next(batch for step in range(50) if (batch := examples(cache, caption_dropout=0.5).batch(step, 0, range(4)))
                 .inputs["text_mask"] is not None)  # fmt: skip

    assert sorted(set(mixed.inputs["text_mask"].sum(dim=1).tolist())) == [1, 3]


def test_motion_weighs_what_moves(cache):
    batch = examples(cache, ["f1"], motion_weight=2.0).batch(0, 0, range(2))

    assert batch.weight.shape == (2, 1, *batch.x0.shape[2:])
    torch.testing.assert_close(batch.weight.mean(dim=(1, 2, 3, 4)), torch.full((2,), 3.0))


def test_a_micro_batch_is_of_one_size(tmp_path):
    clips.write_cache(tmp_path)
    write_clip(tmp_path, "wide", clips.clip(7, 29, 4, 8))
    drawn = examples(ClipCache(tmp_path), ["f1"])

    assert {drawn.batch(step, 0, range(3)).x0.shape[-1] for step in range(40)} == {4, 8}


def test_held_out_clips_are_never_drawn(cache):
    drawn = examples(cache, ["f1"], held_out=2)

    assert {index for step in range(50) for index in drawn.draw(step, 0)[1]} == {0, 1}


def test_a_clip_too_short_for_the_shortest_plan_is_named(tmp_path):
    clips.write_cache(tmp_path, lengths=(29, 18))

    with pytest.raises(ValueError, match=r"clip1\.safetensors \(18\)"):
        examples(ClipCache(tmp_path), sections=(2, 4))


def test_a_clip_of_an_odd_size_is_named(tmp_path):
    write_clip(tmp_path, "odd", clips.clip(0, 29, 5, 4))

    with pytest.raises(ValueError, match=r"odd\.safetensors is 4x5"):
        examples(ClipCache(tmp_path), caption_dropout=0)


def test_holding_out_everything_is_refused(cache):
    with pytest.raises(ValueError, match="no clip left to train on"):
        examples(cache, held_out=4)


def test_clips_with_and_without_image_embeddings_do_not_mix(tmp_path):
    clips.write_cache(tmp_path, lengths=(29,))
    plain = clips.clip(5, 29)
    write_clip(tmp_path, "plain", type(plain)(plain.latents, plain.text, plain.pooled, None, plain.caption))

    with pytest.raises(ValueError, match="'clip 5' has no image embedding"):
        for step in range(20):
            examples(ClipCache(tmp_path)).batch(step, 0, range(4))


@pytest.mark.parametrize(
    ("layouts", "orders", "message"),
    [
        (["framepack"], ["backward"], "order is 'backward'"),
        (["framepack"], ["forward"], "layout framepack fits none of the orders forward"),
        (["f1:0"], ["forward"], "no weight above 0"),
        (["g9_g9"], ["forward"], "generates only once"),
    ],
)
def test_bad_choices_are_refused(layouts, orders, message):
    with pytest.raises(ValueError, match=message):
        recipes(layouts, orders)


def test_text_alone_shows_neither_a_start_nor_an_image(cache):
    drawn = examples(cache, ["framepack", "f1", "endpoints"], text_only=1.0)
    for step in range(30):
        batch = drawn.batch(step, 0, [0])

        assert batch.draw.known == frozenset() and batch.draw.frames % 9 == 0
        assert batch.inputs["image"] is None
        if batch.draw.section.number == 0:
            assert all(frame is None for group in batch.draw.section.context for frame in group.frames)


def test_placed_frames_are_clips_at_both_ends_and_stills_between_sections(cache):
    drawn = examples(cache, ["framepack", "f1", "endpoints"], placed=1.0, sections=(2, 3))
    found = [drawn.draw(step, 0)[0] for step in range(300)]

    for draw in found:
        assert draw.frames <= 56 and not draw.known.intersection(draw.section.target)
        if draw.recipe.order == "forward":
            assert draw.known == frozenset(range(len(draw.known)))
    ends = {draw.recipe.order for draw in found if draw.frames - 1 in draw.known}
    stills = {draw.recipe.order for draw in found if draw.known - {0} and len(draw.known - {0}) == 1}
    assert ends == {"inverted", "endpoints"} and stills >= {"inverted", "endpoints"}
    assert max(len(draw.known) for draw in found if draw.frames - 1 not in draw.known) == 19


def test_a_prompt_that_changes_is_only_drawn_where_what_came_before_is_known_or_made_before(tmp_path):
    folder = clips.write_cache(tmp_path, lengths=(56, 56))
    cache = ClipCache(folder)
    write_clip(folder, cache.names[1], replace(cache[1], later={19: (cache[1].text, cache[1].pooled)}))
    drawn = examples(ClipCache(folder), ["framepack", "f1", "endpoints"], placed=0.5, sections=(1, 4))

    found = Counter()
    for draw, candidates, _ in (drawn.draw(step, 0) for step in range(400)):
        changes = draw.clip_frames > 19
        seen = draw.recipe.order == "forward" or draw.known.issuperset(range(19))
        assert candidates == ([0, 1] if seen or not changes else [0]), draw
        found[draw.recipe.order, changes, seen] += 1
    assert found["inverted", True, True] and found["endpoints", True, True] and found["inverted", True, False]


def test_all_before_a_change_is_known_as_often_as_asked_in_clips_that_have_it(tmp_path):
    folder = clips.write_cache(tmp_path, lengths=(56, 56, 30))
    cache = ClipCache(folder)
    for name, change in ((1, 19), (2, 28)):  # the third is too short for a section after its change
        write_clip(folder, cache.names[name], replace(cache[name], later={change: (cache[name].text, cache[name].pooled)}))
    drawn = examples(ClipCache(folder), ["framepack", "f1", "endpoints"], changed=0.5, end_probability=0.0, sections=(1, 4))

    found = Counter()
    for draw, candidates, _ in (drawn.draw(step, 0) for step in range(400)):
        after = draw.known == frozenset(range(19))
        assert after or draw.known == {0}
        assert not after or (candidates == [1] and min(draw.section.target) >= 19), draw
        found[draw.recipe.order, after, draw.section.target[0] == 19] += 1

    assert all(found[order, True, at_once] for order in ORDERS for at_once in (True, False))
    assert 0.35 < sum(count for (_, after, _), count in found.items() if after) / 400 < 0.65


def test_a_second_change_is_not_drawn_where_what_comes_before_it_has_to_be_guessed(tmp_path):
    folder = clips.write_cache(tmp_path, lengths=(56, 56))
    cache = ClipCache(folder)
    for name, changes in ((0, (19,)), (1, (19, 28))):
        write_clip(
            folder,
            cache.names[name],
            replace(cache[name], later={at: (cache[name].text, cache[name].pooled) for at in changes}),
        )
    drawn = examples(ClipCache(folder), ["framepack", "f1", "endpoints"], changed=1.0, sections=(2, 3))

    for draw, candidates, _ in (drawn.draw(step, 0) for step in range(60)):
        looks_back = draw.recipe.order == "forward"
        assert candidates == ([1] if len(draw.known) == 28 else [0, 1] if looks_back else [0]), draw
