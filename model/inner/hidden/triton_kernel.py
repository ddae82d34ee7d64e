# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# (what a kernel's arguments are is said where it is launched, and found when it is compiled)
"""The kernel: one program takes one stream through all steps of `descent`, for the mse.

B = streams in batch, S = support pairs (padded), N = pairs of a stream (in memory), H = hidden
units, K = inner steps, V = spanning rows (H + S), J = rows of all inner steps (K·S);
s = pairs of the support, j = rows of the steps so far

*How to think about it.* A stream is K times the phases (1) to (4) of `model.inner.hidden.descent`,
one after another, and each phase is a product of two small matrices. The program's threads make
that product in tiles of ROWS x COLUMNS numbers in registers, over CHUNK numbers at a time, so that
registers and shared memory need no more for larger S·K or H. What a step leaves (h, c) lies in
global memory, where it is a result anyway, and so does what phases hand on (z, d, t): a
multiprocessor's first cache holds one stream's. A barrier separates what some threads write and
others read. The naive form is `model.inner.hidden.one_stream`, phase by phase.

The kernel's arguments, in order; all numbers are float32, and columns lie side by side:

| arguments                  | what they are                                                   |
|----------------------------|-----------------------------------------------------------------|
| p, g, r, gamma             | inputs: P (S, H), G (S, S), R (S, H), Γ (S, S) of every stream  |
| each with _stream and _row | their strides in numbers: they are views of (N, ...) blocks     |
| m, weight, rates           | inputs without gaps: M (H, H), pairs' weights (B, S), (K, 4)    |
| a, beta, h, c, sums        | results without gaps; a, beta and sums come as 0                |
| z                          | memory to use (S, H): Z, for gelu alone                         |
| d                          | memory to use (S, V): D's products with V (3)                   |
| t                          | memory to use (S, J): H_k·H_jᵀ (2), then (D_k·V·Vᵀ)·c_jᵀ (3)    |
| S, H, K                    | sizes                                                           |
| ROWS, COLUMNS, CHUNK       | compiled in: the tiles, ROWS at least S                         |
| ACTIVATION, PRECISION      | compiled in: σ by name, and how products round                  |
"""

import triton
import triton.language as tl


@triton.jit
def descend_streams(
    p_BSH,
    p_stream,
    p_row,
    g_BSS,
    g_stream,
    g_row,
    r_BSH,
    r_stream,
    r_row,
    gamma_BSS,
    gamma_stream,
    gamma_row,
    m_HH,
    weight_BS,
    rates_K4,
    a_BSH,
    beta_BH,
    h_BJH,
    c_BJV,
    sums_BV,
    z_BSH,
    d_BSV,
    t_BSJ,
    S,
    H,
    K,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHUNK: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Descends the stream of this program. The table above says what the arguments are."""
    stream = tl.program_id(0).to(tl.int64)
    V, J = H + S, K * S
    p, g = p_BSH + stream * p_stream, g_BSS + stream * g_stream
    r, gamma = r_BSH + stream * r_stream, gamma_BSS + stream * gamma_stream
    a, z, beta = a_BSH + stream * S * H, z_BSH + stream * S * H, beta_BH + stream * H
    h, c, sums = h_BJH + stream * J * H, c_BJV + stream * J * V, sums_BV + stream * V
    d, t = d_BSV + stream * S * V, t_BSJ + stream * S * J
    s = tl.arange(0, ROWS)
    weight = tl.load(weight_BS + stream * S + s, mask=s < S, other=0.0)
    for k in range(K):
        past = k * S
        h_k, c_k = h + past * H, c + past * V
        w1, b1 = weight * tl.load(rates_K4 + 4 * k), weight * tl.load(rates_K4 + 4 * k + 1)
        w2, b2 = weight * tl.load(rates_K4 + 4 * k + 2), weight * tl.load(rates_K4 + 4 * k + 3)

        for start in range(0, H, COLUMNS):  # (1)
            n = start + tl.arange(0, COLUMNS)
            inside = _inside(s, S, n, H)
            zs = tl.load(_at(p, p_row, s, n), mask=inside, other=0.0)
            if k > 0:
                zs += tl.load(beta + n, mask=n < H, other=0.0)[None, :]
                zs = _plus_product(zs, g, g_row, a, H, 1, s, S, n, H, S, CHUNK, PRECISION)
            if ACTIVATION == "gelu":
                tl.store(_at(z, H, s, n), zs, mask=inside)
            tl.store(_at(h_k, H, s, n), _sigma(zs, ACTIVATION), mask=inside)
        tl.debug_barrier()

        for start in range(0, past, COLUMNS):  # (2)
            n = start + tl.arange(0, COLUMNS)
            ts = tl.zeros((ROWS, COLUMNS), tl.float32)
            ts = _plus_product(ts, h_k, H, h, 1, H, s, S, n, past, H, CHUNK, PRECISION)
            tl.store(_at(t, J, s, n), ts, mask=_inside(s, S, n, past))
        tl.debug_barrier()
        for start in range(0, H, COLUMNS):
            n = start + tl.arange(0, COLUMNS)
            inside = _inside(s, S, n, H)
            cs = tl.load(_at(h_k, H, s, n), mask=inside, other=0.0)
            cs += tl.load(sums + n, mask=n < H, other=0.0)[None, :]
            cs = _plus_product(cs, t, J, c, V, 1, s, S, n, H, past, CHUNK, PRECISION)
            tl.store(_at(c_k, V, s, n), cs, mask=inside)
        own = tl.where(s[:, None] == s[None, :], -1.0, 0.0)
        own += tl.load(sums + H + s, mask=s < S, other=0.0)[None, :]
        own = _plus_product(own, t, J, c + H, V, 1, s, S, s, S, past, CHUNK, PRECISION)
        tl.store(_at(c_k + H, V, s, s), own, mask=_inside(s, S, s, S))
        tl.debug_barrier()

        for start in range(0, H, COLUMNS):  # (3)
            n = start + tl.arange(0, COLUMNS)
            ds = tl.zeros((ROWS, COLUMNS), tl.float32)
            ds = _plus_product(ds, c_k, V, m_HH, H, 1, s, S, n, H, H, CHUNK, PRECISION)
            ds = _plus_product(ds, c_k + H, V, r, r_row, 1, s, S, n, H, S, CHUNK, PRECISION)
            tl.store(_at(d, V, s, n), ds, mask=_inside(s, S, n, H))
        if k > 0:
            us = tl.zeros((ROWS, ROWS), tl.float32)
            us = _plus_product(us, c_k, V, r, 1, r_row, s, S, s, S, H, CHUNK, PRECISION)
            us = _plus_product(us, c_k + H, V, gamma, gamma_row, 1, s, S, s, S, S, CHUNK, PRECISION)
            tl.store(_at(d + H, V, s, s), us, mask=_inside(s, S, s, S))
        tl.debug_barrier()
        for start in range(0, past, COLUMNS):
            n = start + tl.arange(0, COLUMNS)
            ts = tl.zeros((ROWS, COLUMNS), tl.float32)
            ts = _plus_product(ts, d, V, c, 1, V, s, S, n, past, V, CHUNK, PRECISION)
            tl.store(_at(t, J, s, n), ts, mask=_inside(s, S, n, past))
        tl.debug_barrier()

        for start in range(0, H, COLUMNS):  # (3), (4)
            n = start + tl.arange(0, COLUMNS)
            inside = _inside(s, S, n, H)
            dz = tl.load(_at(d, V, s, n), mask=inside, other=0.0)
            dz = _plus_product(dz, t, J, h, H, 1, s, S, n, H, past, CHUNK, PRECISION)
            hs = tl.load(_at(h_k, H, s, n), mask=inside, other=0.0)
            if ACTIVATION == "gelu":
                hs = tl.load(_at(z, H, s, n), mask=inside, other=0.0)
            dz = _back(dz, hs, ACTIVATION)
            a_n = tl.load(_at(a, H, s, n), mask=inside, other=0.0) + w1[:, None] * dz
            beta_n = tl.load(beta + n, mask=n < H, other=0.0) + tl.sum(b1[:, None] * dz, 0)
            tl.debug_barrier()  # several threads may hold one number: all read before one writes
            tl.store(_at(a, H, s, n), a_n, mask=inside)
            tl.store(beta + n, beta_n, mask=n < H)
        for start in range(0, V, COLUMNS):
            n = start + tl.arange(0, COLUMNS)
            inside = _inside(s, S, n, V)
            cs = tl.load(_at(c_k, V, s, n), mask=inside, other=0.0)
            sums_n = tl.load(sums + n, mask=n < V, other=0.0) + tl.sum(b2[:, None] * cs, 0)
            tl.debug_barrier()
            tl.store(sums + n, sums_n, mask=n < V)
            tl.store(_at(c_k, V, s, n), w2[:, None] * cs, mask=inside)
        tl.debug_barrier()


@triton.jit
def _at(start, row, s, n):
    """Where a matrix's numbers lie."""
    return start + s[:, None] * row + n[None, :]


@triton.jit
def _inside(s, rows, n, columns):
    return (s < rows)[:, None] & (n < columns)[None, :]


@triton.jit
def _plus_product(
    sums,
    left,
    left_row,
    right,
    right_row,
    right_column,
    s,
    rows,
    n,
    columns,
    inner,
    CHUNK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """sums + left·right: rows s (below `rows`) and columns n (below `columns`) of that product of
    (rows, inner) and (inner, columns)."""
    for start in range(0, inner, CHUNK):
        i = start + tl.arange(0, CHUNK)
        lefts = tl.load(_at(left, left_row, s, i), mask=_inside(s, rows, i, inner), other=0.0)
        places = right + i[:, None] * right_row + n[None, :] * right_column
        rights = tl.load(places, mask=_inside(i, inner, n, columns), other=0.0)
        sums = tl.dot(lefts, rights, sums, input_precision=PRECISION)
    return sums


@triton.jit
def _sigma(z, ACTIVATION: tl.constexpr):
    """σ(z); NaN stays NaN."""
    if ACTIVATION == "relu":
        return tl.where(z < 0.0, 0.0, z)
    elif ACTIVATION == "tanh":
        return 2.0 * tl.sigmoid(2.0 * z) - 1.0
    elif ACTIVATION == "sigmoid":
        return tl.sigmoid(z)
    else:
        return 0.5 * z * (1.0 + tl.erf(z * 0.7071067811865476))


@triton.jit
def _back(dh, of, ACTIVATION: tl.constexpr):
    """dh ∘ σ′(z); `of` is z for gelu, σ(z) for the others."""
    if ACTIVATION == "relu":
        return tl.where(of <= 0.0, 0.0, dh)
    elif ACTIVATION == "tanh":
        return dh * (1.0 - of * of)
    elif ACTIVATION == "sigmoid":
        return dh * of * (1.0 - of)
    else:
        density = 0.3989422804014327 * tl.exp(-0.5 * of * of)
        return dh * (0.5 * (1.0 + tl.erf(of * 0.7071067811865476)) + of * density)


INTERPRETED = not isinstance(descend_streams, triton.JITFunction)
