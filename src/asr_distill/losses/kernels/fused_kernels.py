# ruff: noqa: N803 (compile-time constants are written in capitals)
"""Triton kernels that multiply matrices, for the nodes of a chunk of a batch of transducer lattices.

Layout legend: B batch, T encoder frames, U labels, V vocabulary (blank is 0), H joint, N nodes of the chunk.
A node's place is its index in a flattened (B, T, U + 1). Logits exist only as tiles of some nodes by some tokens, in
registers; `logits_tile` computes one from hidden states (N, H), a weight (V, H) and a bias (V,). Sums are in float32
and in a fixed order: there are no atomic operations. Nodes beyond the last one and tokens beyond the vocabulary
repeat the last one when operands are loaded, which is faster than a mask.

Annotations are not postponed in this module: Triton reads them.
"""

import triton
import triton.language as tl

from asr_distill.losses.kernels.fused_tuning import GRADIENT_ROWS, INTERPRETED, tuned

WIDENED = tl.constexpr(INTERPRETED)
"""The interpreter cannot multiply matrices of bfloat16."""
LOWEST = tl.constexpr(-1e30)
"""Where a running maximum begins: below every logit, yet finite, so that no difference of two becomes NaN."""


@tuned(["V", "H", "PRECISION"])
@triton.jit(do_not_specialize=["num_nodes"])
def arcs_kernel(
    hidden, weight, bias, tokens, places, blank, label, rest, num_nodes,
    V: tl.constexpr, H: tl.constexpr, REST: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """Store the log-probabilities of blank, of the next label (token -1: none) and of the rest at each node's place.

    The rest has a running log-sum-exp (Milakov and Gimelshein 2018) of its own, to which the two others are added last.
    """
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    rows = tl.minimum(n, num_nodes - 1)
    token = tl.load(tokens + rows).to(tl.int32)
    blank_logit = tl.zeros((BLOCK_N,), tl.float32)
    label_logit = tl.zeros((BLOCK_N,), tl.float32)
    peak = tl.full((BLOCK_N,), LOWEST, tl.float32)
    total = tl.zeros((BLOCK_N,), tl.float32)
    for start in range(0, V, BLOCK_V):
        v = start + tl.arange(0, BLOCK_V)
        logits = logits_tile(hidden, weight, bias, rows, v, V, H, PRECISION, BLOCK_N, BLOCK_V, BLOCK_H)
        is_blank = (v == 0)[None, :]
        is_label = v[None, :] == token[:, None]
        blank_logit += tl.sum(tl.where(is_blank, logits, 0.0), axis=1)
        label_logit += tl.sum(tl.where(is_label, logits, 0.0), axis=1)
        others = tl.where(is_blank | is_label, float("-inf"), logits)
        higher = tl.maximum(peak, tl.max(others, axis=1))
        total = total * tl.exp(peak - higher) + tl.sum(tl.exp(others - higher[:, None]), axis=1)
        peak = higher
    label_logit = tl.where(token < 0, float("-inf"), label_logit)
    top = tl.maximum(tl.maximum(blank_logit, label_logit), peak)
    by_blank, by_label, by_rest = blank_logit - top, label_logit - top, peak - top + tl.log(total)
    normaliser = tl.log(tl.exp(by_blank) + tl.exp(by_label) + tl.exp(by_rest))
    place = tl.load(places + rows)
    tl.store(blank + place, by_blank - normaliser, mask=n < num_nodes)
    tl.store(label + place, by_label - normaliser, mask=n < num_nodes)
    if REST:
        tl.store(rest + place, by_rest - normaliser, mask=n < num_nodes)


@tuned(["V", "H", "TEACHER_H", "PLAIN", "DISTIL", "PRECISION"])
@triton.jit(do_not_specialize=["num_nodes"])
def normaliser_kernel(
    plain, student, teacher, divergence,
    hidden, weight, bias, teacher_hidden, teacher_weight, teacher_bias, teacher_rows, places,
    blank, label, rest, num_nodes, student_scale, teacher_scale,
    V: tl.constexpr, H: tl.constexpr, TEACHER_H: tl.constexpr, PLAIN: tl.constexpr, DISTIL: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """Store log-sum-exps of each node's logits (N,), and the divergence of the scaled distributions at its place.

    PLAIN: `plain`, the student's as they are. DISTIL: `student` and `teacher`, theirs times their scales, and
    KL(teacher || student) where the node has a teacher. Without DISTIL, blocks of nodes without coefficients get -inf.
    """
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    rows = tl.minimum(n, num_nodes - 1)
    place = tl.load(places + rows)
    plain_peak = tl.full((BLOCK_N,), LOWEST, tl.float32)
    plain_total = tl.zeros((BLOCK_N,), tl.float32)
    peak = tl.full((BLOCK_N,), LOWEST, tl.float32)
    total = tl.zeros((BLOCK_N,), tl.float32)
    teacher_peak = tl.full((BLOCK_N,), LOWEST, tl.float32)
    teacher_total = tl.zeros((BLOCK_N,), tl.float32)
    gap = tl.zeros((BLOCK_N,), tl.float32)
    wanted = True
    if not DISTIL:
        wanted = tl.max(has_arcs(blank, label, rest, place).to(tl.int32), axis=0) > 0
    if wanted:
        for start in range(0, V, BLOCK_V):
            v = start + tl.arange(0, BLOCK_V)
            logits = logits_tile(hidden, weight, bias, rows, v, V, H, PRECISION, BLOCK_N, BLOCK_V, BLOCK_H)
            if PLAIN:
                higher = tl.maximum(plain_peak, tl.max(logits, axis=1))
                plain_total = plain_total * tl.exp(plain_peak - higher)
                plain_total += tl.sum(tl.exp(logits - higher[:, None]), axis=1)
                plain_peak = higher
            if DISTIL:
                logits *= student_scale
                targets = teacher_scale * logits_tile(
                    teacher_hidden, teacher_weight, teacher_bias, rows, v, V, TEACHER_H, PRECISION,
                    BLOCK_N, BLOCK_V, BLOCK_H,
                )  # fmt: skip
                higher = tl.maximum(peak, tl.max(logits, axis=1))
                teacher_higher = tl.maximum(teacher_peak, tl.max(targets, axis=1))
                logits -= higher[:, None]
                targets -= teacher_higher[:, None]
                # The divergence is the teacher's mean of targets - logits, less the difference of the normalisers.
                # Both are taken relative to the peaks, which would cost the difference its last digits; when peaks
                # move, so does what was added up before.
                decay = tl.exp(teacher_peak - teacher_higher)
                gap = decay * (gap + teacher_total * ((teacher_peak - teacher_higher) - (peak - higher)))
                probabilities = tl.exp(targets)
                gap += tl.sum(tl.where((v < V)[None, :], probabilities * (targets - logits), 0.0), axis=1)
                teacher_total = teacher_total * decay + tl.sum(probabilities, axis=1)
                total = total * tl.exp(peak - higher) + tl.sum(tl.exp(logits), axis=1)
                peak, teacher_peak = higher, teacher_higher
    inside = n < num_nodes
    if PLAIN:
        tl.store(plain + n, plain_peak + tl.log(plain_total), mask=inside)
    if DISTIL:
        tl.store(student + n, peak + tl.log(total), mask=inside)
        tl.store(teacher + n, teacher_peak + tl.log(teacher_total), mask=inside)
        found = gap / teacher_total + tl.log(total) - tl.log(teacher_total)
        tl.store(divergence + place, found, mask=inside & (tl.load(teacher_rows + rows) >= 0))


@tuned(["V", "H", "TEACHER_H", "ARCS", "LOG_REST", "DISTIL", "PRECISION"], rows=GRADIENT_ROWS)
@triton.jit(do_not_specialize=["num_nodes"])
def gradient_kernel(
    gradient, bias_partials, plain, student, teacher,
    hidden, weight, bias, teacher_hidden, teacher_weight, teacher_bias, teacher_rows, places, tokens,
    blank, label, rest, log_rest, divergence, num_nodes, gradient_stride, student_scale, teacher_scale,
    V: tl.constexpr, H: tl.constexpr, TEACHER_H: tl.constexpr, ARCS: tl.constexpr, LOG_REST: tl.constexpr,
    DISTIL: tl.constexpr, PRECISION: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """Store the gradient (N, V) for the logits, as in `Coefficients`, and its sum over each block of nodes.

    The coefficients are read at the nodes' places, the normalisers are those of `normaliser_kernel`. Products are
    spared for blocks of nodes whose coefficients are all zero.
    """
    tiles = (V + BLOCK_V - 1) // BLOCK_V
    block = tl.program_id(0) // tiles
    n = block * BLOCK_N + tl.arange(0, BLOCK_N)
    v = tl.program_id(0) % tiles * BLOCK_V + tl.arange(0, BLOCK_V)
    rows = tl.minimum(n, num_nodes - 1)
    place = tl.load(places + rows)
    result = tl.zeros((BLOCK_N, BLOCK_V), tl.float32)
    wanted = n < 0
    if ARCS:
        wanted = has_arcs(blank, label, rest, place)
    if DISTIL:
        strength = tl.where(tl.load(teacher_rows + rows) >= 0, tl.load(divergence + place), 0.0)
        wanted |= strength != 0
    if tl.max(wanted.to(tl.int32), axis=0) > 0:
        logits = logits_tile(hidden, weight, bias, rows, v, V, H, PRECISION, BLOCK_N, BLOCK_V, BLOCK_H)
        if ARCS:
            normaliser = tl.load(plain + rows)
            if LOG_REST:
                normaliser += tl.load(log_rest + place)
            others = tl.load(rest + place)[:, None]
            result = tl.where(others != 0, others * tl.exp(logits - normaliser[:, None]), 0.0)
            result = tl.where((v == 0)[None, :], tl.load(blank + place)[:, None], result)
            is_label = v[None, :] == tl.load(tokens + rows).to(tl.int32)[:, None]
            result = tl.where(is_label, tl.load(label + place)[:, None], result)
        if DISTIL:  # the student's part comes first, so that its logits need not be kept during the second product
            strength *= student_scale
            result += strength[:, None] * tl.exp(logits * student_scale - tl.load(student + rows)[:, None])
            targets = logits_tile(
                teacher_hidden, teacher_weight, teacher_bias, rows, v, V, TEACHER_H, PRECISION,
                BLOCK_N, BLOCK_V, BLOCK_H,
            )  # fmt: skip
            result -= strength[:, None] * tl.exp(targets * teacher_scale - tl.load(teacher + rows)[:, None])
    inside = (n < num_nodes)[:, None] & (v < V)[None, :]
    tl.store(gradient + n[:, None].to(tl.int64) * gradient_stride + v[None, :], result, mask=inside)
    tl.store(bias_partials + block * V + v, tl.sum(tl.where(inside, result, 0.0), axis=0), mask=v < V)


@triton.jit
def logits_tile(
    hidden, weight, bias, rows, v, V: tl.constexpr, H: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """Return the logits of nodes `rows` (BLOCK_N,) for tokens `v` (BLOCK_V,); -inf beyond the vocabulary."""
    tokens = tl.minimum(v, V - 1)
    h = tl.arange(0, BLOCK_H)
    left_at = hidden + rows[:, None].to(tl.int64) * H + h[None, :]
    right_at = weight + tokens[:, None].to(tl.int64) * H + h[None, :]
    product = tl.zeros((BLOCK_N, BLOCK_V), tl.float32)
    for start in range(0, H, BLOCK_H):
        if H % BLOCK_H == 0:
            left, right = tl.load(left_at + start), tl.load(right_at + start)
        else:
            inside = (start + h < H)[None, :]
            left = tl.load(left_at + start, mask=inside, other=0.0)
            right = tl.load(right_at + start, mask=inside, other=0.0)
        if WIDENED:
            left, right = left.to(tl.float32), right.to(tl.float32)
        product = tl.dot(left, tl.trans(right), product, input_precision="tf32" if PRECISION == "tf32" else "ieee")
    logits = product + tl.load(bias + tokens)[None, :]
    return tl.where((v < V)[None, :], logits, float("-inf"))


@triton.jit
def has_arcs(blank, label, rest, place):
    """Return which nodes have a coefficient other than zero; NaN is one."""
    return (tl.load(blank + place) != 0) | (tl.load(label + place) != 0) | (tl.load(rest + place) != 0)
