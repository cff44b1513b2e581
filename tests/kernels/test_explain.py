import doctest
import json

import pytest

from kernels import explain


def said(capsys, *words):
    assert explain.main(words) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def facts(capsys, line, *more):
    return json.loads(said(capsys, *line.split(), *more, "--json"))


def refused(capsys, *words):
    assert explain.main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, "one line"
    return captured.err.rstrip("\n")


LECTURE = ("--input", "5x5x3", "--filters", "32", "--size", "3")


def test_the_modules_own_example():
    result = doctest.testmod(explain)
    assert result.attempted
    assert not result.failed


def test_the_lectures_layer_in_full(capsys):
    assert (
        said(capsys, *LECTURE)
        == """\
Input 5x5x3, 32 filters of 3x3x3, stride 1, dilation 1, batch 1
Padding in effect: top 0, bottom 0, left 0, right 0

Output size: 3x3x32
  P = floor((H + top + bottom - ((R - 1)*dilation + 1)) / stride) + 1
    = floor((5 + 0 + 0 - ((3 - 1)*1 + 1)) / 1) + 1
    = floor(2 / 1) + 1 = 2 + 1 = 3
  Q = floor((W + left + right - ((S - 1)*dilation + 1)) / stride) + 1
    = floor((5 + 0 + 0 - ((3 - 1)*1 + 1)) / 1) + 1
    = floor(2 / 1) + 1 = 2 + 1 = 3

Work
  parameters    K*(R*S*C) + K = 32*(3*3*3) + 32 = 896
  FLOPs         2*N*K*P*Q*C*R*S (a multiplication and an addition a tap)
                = 2*1*32*3*3*3*3*3 = 15,552
  least bytes   4*(input + filters + output), each moved once in float32
                = 4*(75 + 864 + 288) = 4,908
  intensity     15,552 / 4,908 = 3.169 FLOPs a byte

As one matrix product (im2col)
  X_col   (C*R*S) x (P*Q) = 27 x 9: a column holds what one output sees
  W_row   K x (C*R*S) = 32 x 27: a row is one filter
  W_row X_col = 32 x 9, reshaped to 32 x 3 x 3 (K x P x Q)
  X_col holds 243 numbers, 3.24 times the input's 75

Receptive field
  one layer     3x3: (3 - 1)*1 + 1 rows, (3 - 1)*1 + 1 columns
  two of them   5x5

Picture (one channel)
  input 5x5, padded 5x5      output 3x3
  A X X B .                  A B .
  A X X B .                  . . .
  A X X B .                  . . .
  . . . . .
  . . . . .
  A first window, B the next one stride on, X both (lower case: on padding)
  . any other input, 0 padding; the outputs they give are A and B on the right
"""
    )


def test_the_issues_layer(capsys):
    got = facts(capsys, "--input 32x32x3 --filters 16 --size 5 --stride 1 --padding same")
    assert got == {
        "input": [1, 3, 32, 32],
        "filters": [16, 3, 5, 5],
        "output": [1, 16, 32, 32],
        "stride": [1, 1],
        "padding": [[2, 2], [2, 2]],
        "dilation": [1, 1],
        "bias": True,
        "parameters": 1216,
        "flops": 2457600,
        "least_bytes": 82624,
        "intensity": pytest.approx(29.744, abs=1e-3),
        "im2col": {"X_col": [75, 1024], "W_row": [16, 75], "product": [16, 1024]},
        "receptive_field": [5, 5],
    }


def test_each_option_reaches_the_shape(capsys):
    got = facts(
        capsys,
        "--input 9x12x2 --filters 4 --size 3x2 --stride 2x3 --dilation 1x4 --padding 0,1,2,3 "
        "--batch 5 --no-bias",
    )
    assert got["input"] == [5, 2, 9, 12]
    assert got["filters"] == [4, 2, 3, 2]
    assert got["padding"] == [[0, 1], [2, 3]]
    assert got["output"] == [5, 4, 4, 5]  # (9+1-3)/2 floored + 1; (12+5-5)/3 + 1
    assert got["parameters"] == 48
    assert got["flops"] == 2 * 5 * 4 * 4 * 5 * 12


def test_the_floor_is_shown(capsys):
    text = said(capsys, "--input", "8x9x1", "--filters", "1", "--size", "3", "--stride", "4x2")
    assert "= floor(5 / 4) + 1 = 1 + 1 = 2\n    the floor drops 1/4: the last row is" in text
    assert "= floor(6 / 2) + 1 = 3 + 1 = 4\n\n" in text


def picture(capsys, line):
    text = said(capsys, *line.split())
    lines = text.partition("Picture (one channel)\n")[2].splitlines()
    end = next(i for i, row in enumerate(lines) if "first window" in row)
    return [row.strip() for row in lines[1:end]], lines[end + 2 :]


def test_picture_of_padding_dilation_and_stride(capsys):
    rows, notes = picture(
        capsys, "--input 5x6x3 --filters 2 --size 3 --stride 2 --dilation 2 --padding same"
    )
    assert rows == [
        "a 0 x 0 x 0 b 0 0          A B .",
        "0 0 0 0 0 0 0 0 0          . . .",
        "a . X . X . B 0 0          . . .",
        "0 . . . . . . 0 0",
        "a . X . X . B 0 0",
        "0 . . . . . . 0 0",
        "0 . . . . . . 0 0",
        "0 0 0 0 0 0 0 0 0",
        "0 0 0 0 0 0 0 0 0",
    ]
    assert notes == []


def test_picture_of_asymmetric_padding(capsys):
    rows, _ = picture(capsys, "--input 2x2x1 --filters 1 --size 2 --padding 1,0,0,3")
    assert rows == [
        "a x b 0 0                  A B . .",
        "A X b 0 0                  . . . .",
        ". . 0 0 0",
    ]


def test_picture_goes_down_where_the_output_is_one_wide(capsys):
    rows, _ = picture(capsys, "--input 4x3x1 --filters 1 --size 2x3")
    assert rows == [
        "A A A                      A",
        "X X X                      B",
        "B B B                      .",
        ". . .",
    ]


def test_picture_of_a_single_output(capsys):
    rows, _ = picture(capsys, "--input 2x2x1 --filters 1 --size 2")
    assert rows == ["A A                        A", "A A"]


def test_large_pictures_are_cropped_and_say_so(capsys):
    rows, notes = picture(capsys, "--input 40x50x1 --filters 1 --size 3 --padding 1")
    assert notes == [
        "  cropped: the first 16x26 of the padded input's 42x52",
        "  cropped: the first 16x16 of the output's 40x50",
    ]
    assert len(rows) == 17
    assert rows[0].startswith("a x x b 0 0 ")
    assert all(row.count("...") == 2 for row in rows)


@pytest.mark.parametrize(
    "line",
    [
        "--input 30000x20000x3 --filters 16 --size 1110x2300 --stride 13 --dilation 7 "
        "--padding 1001,1002,1003,1004 --batch 1",
        "--input 1024x1024x512 --filters 512 --size 3 --padding same --batch 2",
    ],
)
def test_fits_100_columns(capsys, line):
    assert max(map(len, said(capsys, *line.split()).splitlines())) <= 100


def layers(*specs):
    return [word for spec in specs for word in ("--layer", spec)]


def test_two_3x3_see_5x5_and_so_does_dilation_2(capsys):
    assert facts(capsys, "", *layers("3x3", "3x3"))["receptive_field"] == [5, 5]
    assert facts(capsys, "", *layers("3x3 dilation 2"))["receptive_field"] == [5, 5]


LENET = ("5x5 filters 6 padding 2", "pool 2x2", "conv 5 filters 16", "POOL stride 2 3x2")


def test_lenet_as_a_table(capsys):
    assert (
        said(capsys, "--input", "28x28x1", "--batch", "2", *layers(*LENET))
        == """\
layer                      output  parameters      FLOPs  receptive field  jump
input                     28x28x1                                     1x1     1
5x5 filters 6 padding 2   28x28x6         156    470,400              5x5     1
pool 2x2                  14x14x6           0      9,408              6x6     2
conv 5 filters 16        10x10x16       2,416    960,000            14x14     2
POOL stride 2 3x2          4x5x16           0      3,840            18x16     4
total                                   2,572  1,443,648

receptive field: + (window - 1) * jump a layer; jump: * stride a layer, the distance on
the input between neighbouring outputs. A pooling's FLOPs: one an element of a window.
FLOPs are those of a batch of 2.
"""
    )


def test_network_without_input_or_filters_says_what_is_missing(capsys):
    assert "Give --input HxWxC for output sizes." in said(capsys, *layers("3x3"))
    text = said(capsys, "--input", "9x9x1", *layers("3x3", "3x3 filters 2"))
    assert "7x7x?" in text
    assert "5x5x2" in text
    assert 'Give every convolution its filters ("3x3 filters 16")' in text


def test_network_without_bias_and_with_a_stride_each_way(capsys):
    got = facts(
        capsys, "--input 9x9x3 --no-bias", *layers("3x3 filters 4 stride 2x1", "1 filters 2")
    )
    assert got["parameters"] == 4 * 27 + 2 * 4
    assert got["layers"][-1]["jump"] == [2, 1]
    assert got["layers"][-1]["output"] == [4, 7, 2]
    assert got["flops"] == 2 * 4 * 28 * 27 + 2 * 2 * 28 * 4


def test_a_long_layer_still_fits(capsys):
    spec = "conv 123x123 filters 1234 stride 12x12 dilation 12x12 padding 1111,1111,1111,1111"
    text = said(capsys, "--input", "1000x1000x3", *layers(spec))
    assert max(map(len, text.splitlines())) <= 100
    assert "conv 123x123" in text


SYNTAX = '"[conv | pool] SIZE [filters K] [stride N] [dilation N] [padding P]"'


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "explain: --input is missing; expected --input HxWxC --filters K --size RxS, or "
             "--layer for a network"),
        (LECTURE[:2], "explain: --filters is missing; expected --input HxWxC --filters K --size "
                      "RxS, or --layer for a network"),
        (["--input", "5x5", *LECTURE[2:]],
         "explain: --input is '5x5'; expected HxWxC, such as 32x32x3"),
        (["--input", "5x0x3", *LECTURE[2:]], "explain: --input is 0; expected at least 1"),
        ([*LECTURE, "--filters", "many"],
         "explain: --filters is 'many'; expected a whole number >= 1"),
        ([*LECTURE, "--size", "3x3x3"],
         "explain: --size is '3x3x3'; expected N or RxS, such as 3 or 3x5"),
        ([*LECTURE, "--size", "0"], "explain: --size is 0; expected at least 1"),
        ([*LECTURE, "--stride", ""],
         "explain: --stride is ''; expected N or RxS, such as 3 or 3x5"),
        ([*LECTURE, "--stride", "1x0"], "explain: --stride is 0; expected at least 1"),
        ([*LECTURE, "--dilation", "-2"],
         "explain: --dilation is '-2'; expected N or RxS, such as 3 or 3x5"),
        ([*LECTURE, "--padding", "1,2"], "explain: --padding is '1,2'; expected same, valid, N or "
                                         "T,B,L,R (top, bottom, left, right)"),
        ([*LECTURE, "--padding", "full"], "explain: --padding is 'full'; expected same, valid, N "
                                          "or T,B,L,R (top, bottom, left, right)"),
        ([*LECTURE, "--batch", "0"], "explain: --batch is 0; expected at least 1"),
        ([*LECTURE, "--size", "7"],
         "explain: the filter spans 7 rows but the padded input has 5 (5 + padding 0 + 0); use a "
         "smaller one or more padding"),
        ([*LECTURE, "--filters", "9" * 30],
         f"explain: --filters is '{'9' * 30}'; expected a whole number >= 1"),
        ([*LECTURE, "--batch", "100000000"],
         "explain: x of shape (100000000, 3, 5, 5) has 7500000000 elements; kernels index with 32 "
         "bits, at most 2147482624: split the batch"),
        (layers("wool 2x2"),
         f"explain: --layer is 'wool 2x2': 'wool' is no word of it; expected {SYNTAX}"),
        (layers(""), f"explain: --layer is '': no size in it; expected {SYNTAX}"),
        (layers("3 stride"), f"explain: --layer is '3 stride': stride has no value; expected "
                             f"{SYNTAX}"),
        (layers("3 5"), f"explain: --layer is '3 5': a second size, '5'; expected {SYNTAX}"),
        (layers("pool 2 filters 3"), "explain: --layer is 'pool 2 filters 3': a pool has no "
         'filters; expected "pool SIZE [stride N] [padding P]"'),
        (layers("3 stride 0"), "explain: stride of layer '3 stride 0' is 0; expected at least 1"),
        (["--stride", "2", *layers("3")],
         f"explain: --stride is given beside --layer; expected it in the layer: --layer {SYNTAX}"),
        (["--input", "9x9x1", *layers("5", "3", "7")],
         "explain: layer 3 (7): the filter spans 7 rows but the padded input has 3 "
         "(3 + padding 0 + 0); use a smaller one or more padding"),
        (["--input", "9x9x1", *layers("pool 2 padding 2")],
         "explain: layer 1 (pool 2 padding 2): padding (2, 2) makes a window of 2 rows all padding "
         "(input 9, stride 2); expected every window to hold an input element: use less padding"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line_and_exit_code_2(capsys, words, text):
    assert refused(capsys, *words) == text
