"""Text features: any script, any length, each text by itself."""

import sys
import time
import unicodedata

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from model.encoders.build import fresh_encoder_spec
from model.encoders.normalisation import is_visible, normalised_text
from model.encoders.sequences import padded_length, reversed_RT
from model.encoders.text import (
    KIND,
    ROWS,
    TextEncoder,
    TextNet,
    TextSizes,
    bidirectional,
    code_points,
    hashed_grams,
)
from model.encoders.trained_part import fresh_net
from model.values.contents import Content
from model.values.errors import BadContent

CPU = torch.device("cpu")
SIZES = TextSizes(dim=6, max_chars=40, buckets=97, width=8, hidden=5, stride=2)
NET = fresh_net(lambda: TextNet(SIZES), 3)
ENCODER = TextEncoder(NET.spec(), CPU)
TEXTS = [
    "a",
    "grinning face",
    "Grüße an alle",
    "улыбающееся лицо",
    "มีความสุข",
    "嘿嘿",
    "😀",
    "وجه ضاحك",
    "x" * 40,
    "मुस्कुराता हुआ चेहरा",
    "12345678",
    "123456789",
]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Grinning  FACE\n", "grinning face"),
        ("  Straße ", "strasse"),
        ("e\N{COMBINING ACUTE ACCENT}", "é"),
        ("ﬁｇ", "fig"),
        ("\u3000寿\u00a0司", "寿 司"),
        ("İ", "i\N{COMBINING DOT ABOVE}"),
        ("x" * 99, "x" * 40),
        ("a" * 39 + " " + "b", "a" * 39 + " "),
    ],
)
def test_texts_that_people_call_equal_read_equal(text: str, read: str) -> None:
    assert "".join(map(chr, code_points(text, 40))) == read


@given(st.text(min_size=1, max_size=60))
def test_any_text_is_read_once_and_for_all_or_is_empty(text: str) -> None:
    try:
        codes_T = code_points(text, 40)
    except BadContent:
        assert not is_visible(unicodedata.normalize("NFKC", text))
        return
    assert 1 <= len(codes_T) <= 40
    if len(codes_T) < 40:  # a cut may fall within what another reading composes
        again = code_points("".join(map(chr, codes_T)), 40)
        np.testing.assert_array_equal(again, codes_T)


INVISIBLE = {
    "zero width": "\u200b\u200c\u200d\u2060",
    "byte order mark": "\ufeff",
    "variation selectors": "\ufe0e\ufe0f\U000e0100\U000e01ef\u180b\u180f",
    "controls": "\0\x01\x07\x1b\x7f\x80\x9f",
    "directions": "\u200e\u200f\u202a\u202e\u2066\u2069\u061c",
    "soft hyphen": "\u00ad",
    "fillers": "\u3164\u115f\u1160\uffa0\u2800",
    "joiner": "\u034f",
    "tags": "\U000e0001\U000e0041\U000e007f",
    "white space among them": " \u200b\n\u2028\u2029\ufe0f\u3000",
}


@pytest.mark.parametrize("text", INVISIBLE.values(), ids=INVISIBLE)
def test_a_text_of_invisible_characters_alone_is_empty(text: str) -> None:
    for repeated in (text, text * 300):
        with pytest.raises(BadContent, match="no visible") as caught:
            ENCODER.prepare(repeated)
        assert caught.value.reason == "empty_text"
    for visible in ("a", "❤", "한", "\N{COMBINING ACUTE ACCENT}", "\ue000"):
        assert len(ENCODER.prepare(text[:8] + visible))


@pytest.mark.parametrize("text", ["", " ", "\n\t \u3000\u00a0"])
def test_a_text_with_nothing_in_it_is_refused(text: str) -> None:
    with pytest.raises(BadContent, match="no visible") as caught:
        ENCODER.prepare(text)
    assert caught.value.reason == "empty_text"


@pytest.mark.parametrize("content", [b"bytes", np.zeros(3)])
def test_what_is_no_string_is_refused(content: Content) -> None:
    with pytest.raises(BadContent) as caught:
        ENCODER.prepare(content)
    assert caught.value.reason == "wrong_modality"


@pytest.mark.parametrize(
    "text",
    [
        "Tiếng Việt, đường phố, những ngõ nhỏ ở Hà Nội",
        "안녕하세요 세계 여러분 모두 반갑습니다 오늘도",
        "ᾂδειν ᾧ ᾯ ᾷ ἅπαντα πρὸς τὴν ψυχὴν ᾄσομαι",
        "ǖǘǚǜ Ǟǟ Ǡǡ ṩṩṩ ḝḝ ẫẫẫ ỡỡỡ ọ̈ṩ",
        "がぎぐげござじずぜぞだぢづでどばびぶべぼぱぴぷぺぽ",
    ],
)
@pytest.mark.parametrize("max_chars", [1, 2, 5, 8, 13, 40])
def test_a_text_of_letters_and_marks_is_composed_before_it_is_cut(
    text: str, max_chars: int
) -> None:
    composed, decomposed = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    assert len(decomposed) > len(composed)
    expected = unicodedata.normalize("NFC", composed.casefold())[:max_chars]
    for read in (composed, decomposed):
        assert "".join(map(chr, code_points(read, max_chars))) == expected


@given(st.text(min_size=1, max_size=60), st.integers(1, 30))
def test_however_a_text_is_composed_it_reads_the_same(text: str, max_chars: int) -> None:
    forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD")]
    assert len({normalised_text(form, max_chars) for form in forms}) == 1
    whole = normalised_text(text, 10_000)
    assert whole.startswith(normalised_text(text, max_chars))


@pytest.mark.parametrize(
    ("text", "max_chars", "read"),
    [
        ("abc👩\u200d👧", 5, "abc"),
        ("abc👩\u200d👧", 6, "abc👩\u200d👧"),
        ("ab👍🏽", 3, "ab"),
        ("a❤\ufe0f", 2, "a"),
        ("🇩🇪🇫🇷", 3, "🇩🇪"),
        ("a🇩🇪🇫🇷", 4, "a🇩🇪"),
        ("मुस्कु", 3, "मु"),
        ("x\u0301\u0302y", 2, "x\u0301"),  # longer than all that there is room for
        ("ax\u0301\u0302y", 3, "a"),
    ],
)
def test_a_cut_separates_nothing_that_is_seen_as_one(text: str, max_chars: int, read: str) -> None:
    assert "".join(map(chr, code_points(text, max_chars))) == read


@pytest.mark.parametrize("max_chars", [128, 65_536])
@pytest.mark.parametrize(
    "text",
    [
        "a" + "\u0315\u0300" * 200_000,
        "a" + "\u0315" * 200_000 + "\u0316" * 200_000,
        ("a" + "\u0315\u0300\u0323" * 9) * 14_000,
        "\N{ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM}" * 340_000,
        "\u0390" * 500_000,
        "👩\u200d" * 149_000,
        "🇩" * 250_000,
        " \u00a8" * 300_000,
        "\u1100\u1161\u11a8" * 110_000,
    ],
    ids=lambda text: f"U+{ord(text[-1]):04X}",
)
def test_no_text_of_a_megabyte_takes_long(text: str, max_chars: int) -> None:
    assert len(text.encode()) <= 2**20
    started = time.process_time()
    codes_T = code_points(text, max_chars)
    assert time.process_time() - started < 5.0
    assert 1 <= len(codes_T) <= max_chars


def slow(net: TextNet, codes: list[int]) -> Tensor:
    """One text, one step after another, with cells instead of sequences."""
    vectors = []
    for at in range(len(codes)):
        ids = []
        for n in net.sizes.grams:
            key = n
            for back in range(n):
                code = codes[at - back] if at >= back else 0
                key = ((key ^ code) * 2_654_435_761 >> 7) % 2**31
            ids.append(key % net.sizes.buckets)
        vectors.append(sum((net.embedding.weight[i] for i in ids), torch.zeros(net.sizes.width)))
    mean_U = torch.stack(vectors).mean(0)
    if len(vectors) % 2:
        vectors.append(torch.zeros(net.sizes.width))
    steps = [torch.cat(vectors[i : i + 2])[None] for i in range(0, len(vectors), 2)]
    ahead = run_cell(net.forwards, steps)
    behind = run_cell(net.backwards, steps[::-1])[::-1]
    h_FH = torch.stack([torch.cat(pair) for pair in zip(ahead, behind, strict=True)])
    raw_X: Tensor = net.linear(torch.cat([mean_U, h_FH.max(0).values])[None])[0]
    result: Tensor = raw_X / raw_X.norm() * len(raw_X) ** 0.5
    return result


def run_cell(gru: nn.GRU, steps: list[Tensor]) -> list[Tensor]:
    cell = nn.GRUCell(gru.input_size, gru.hidden_size)
    cell.load_state_dict({n.removesuffix("_l0"): t for n, t in gru.state_dict().items()})
    states = [torch.zeros(1, gru.hidden_size)]
    for step in steps:
        states.append(cell(step, states[-1]))
    return [state[0] for state in states[1:]]


@torch.no_grad()
def test_a_batch_of_all_lengths_is_each_text_alone_whatever_stands_behind_it() -> None:
    lengths = [1, 2, 3, 7, 8, 9, 15, 16]
    generator = torch.Generator().manual_seed(0)
    codes_RT = torch.randint(1, sys.maxunicode, (len(lengths), 16), generator=generator)
    together_RX = NET(codes_RT, torch.tensor(lengths))
    for codes_T, length, features_X in zip(codes_RT, lengths, together_RX, strict=True):
        alone_X = slow(NET, codes_T[:length].tolist())
        torch.testing.assert_close(features_X, alone_X, atol=1e-5, rtol=1e-5)


def test_features_do_not_depend_on_company_to_the_bit() -> None:
    prepared = [ENCODER.prepare(text) for text in TEXTS * 3]
    together_RX = ENCODER.encode(prepared)
    for array, features_X in zip(prepared, together_RX, strict=True):
        assert torch.equal(ENCODER.encode([array])[0], features_X)
    assert torch.equal(ENCODER.encode(prepared[::-1]).flip(0), together_RX)
    assert len(prepared) > ROWS["cpu"]
    assert ENCODER.encode([]).shape == (0, 6)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(len(TEXTS))), st.integers(1, len(TEXTS)))
def test_any_company_gives_the_same_bits(order: list[int], count: int) -> None:
    whole_RX = ENCODER.encode([ENCODER.prepare(text) for text in TEXTS])
    some_RX = ENCODER.encode([ENCODER.prepare(TEXTS[i]) for i in order[:count]])
    assert torch.equal(some_RX, whole_RX[order[:count]])


def test_features_have_norm_root_of_their_number_and_differ() -> None:
    features_RX = ENCODER.encode([ENCODER.prepare(text) for text in TEXTS])
    torch.testing.assert_close(features_RX.square().mean(1), torch.ones(len(TEXTS)))
    assert (torch.cdist(features_RX, features_RX) + torch.eye(len(TEXTS)) > 1e-3).all()


def test_order_matters() -> None:
    a_X, b_X = ENCODER.encode([ENCODER.prepare("dog bites man"), ENCODER.prepare("man bites dog")])
    assert (a_X - b_X).norm() > 1e-3


def test_reversing_turns_each_round_within_its_length() -> None:
    h_RTC = torch.arange(8.0).reshape(2, 4, 1)
    turned = reversed_RT(h_RTC, torch.tensor([3, 1]))
    assert turned[0, :3, 0].tolist() == [2, 1, 0]
    assert turned[1, :1, 0].tolist() == [4]


def test_both_ways_sees_nothing_behind_the_end() -> None:
    h_RFI = torch.randn(2, 4, 16, requires_grad=True)
    out_RFH = bidirectional(h_RFI, torch.tensor([3, 1]), NET.forwards, NET.backwards)
    (grad_RFI,) = torch.autograd.grad(out_RFH[0, :3].sum() + out_RFH[1, :1].sum(), h_RFI)
    seen = grad_RFI.abs().sum(2) > 0
    assert seen.tolist() == [[True, True, True, False], [True, False, False, False]]


def test_hashes_are_the_same_for_ever() -> None:
    codes = torch.tensor([[104, 105, sys.maxunicode]])
    assert hashed_grams(codes, (1, 3), 2_048).tolist() == [[[467, 1931], [735, 479], [1049, 267]]]


def test_hashes_spread_evenly() -> None:
    ids = hashed_grams(torch.arange(1, 40_961)[None], (1,), 512).flatten()
    counts = torch.bincount(ids, minlength=512)
    # chi-squared over 511 degrees of freedom: mean 511, deviation 32
    assert ((counts - 80.0) ** 2 / 80.0).sum() < 511 + 6 * 32


def test_lengths_are_padded_to_powers_of_two() -> None:
    assert [padded_length(n, 8) for n in (1, 8, 9, 16, 17, 128)] == [8, 8, 16, 16, 32, 128]


@pytest.mark.filterwarnings("ignore:The tensor attributes")  # torch's own GRU's, in its export
def test_the_forward_pass_is_exported() -> None:
    inputs = (torch.randint(1, 9_999, (3, 8)), torch.tensor([1, 8, 5]))
    exported = torch.export.export(NET, inputs)
    torch.testing.assert_close(exported.module()(*inputs), NET(*inputs))


def test_it_learns_to_tell_words_apart_and_is_served_as_trained() -> None:
    net = fresh_net(lambda: TextNet(SIZES), 0)
    texts = ["yes", "ja", "да", "はい", "no", "nein", "нет", "いいえ"]
    arrays = [code_points(text, 8) for text in texts]
    codes_RT = torch.tensor([[*a.tolist(), *[0] * (8 - len(a))] for a in arrays])
    length_R = torch.tensor([len(a) for a in arrays])
    goal_R = torch.tensor([0] * 4 + [1] * 4)
    optimiser = torch.optim.Adam(net.parameters(), 0.02)
    losses = []
    for _ in range(30):
        loss = functional.cross_entropy(net(codes_RT, length_R)[:, :2], goal_R)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        losses.append(loss.item())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    assert losses[-1] < 0.2 < losses[0]
    served_RX = TextEncoder(net.spec(), CPU).encode(arrays)
    torch.testing.assert_close(served_RX, net(codes_RT, length_R).detach(), atol=1e-5, rtol=1e-5)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    a, b, c = (
        fresh_encoder_spec(KIND, 6, seed, buckets=16, width=8, hidden=4) for seed in (0, 0, 1)
    )
    assert torch.rand(1) == expected
    assert all(np.array_equal(a.tensors[n], b.tensors[n]) for n in a.tensors)
    assert not np.array_equal(a.tensors["embedding.weight"], c.tensors["embedding.weight"])
