"""Wrong answers to the exercises of notebook 00b."""


def keys_alone(layers, kv_heads, head_dim, bytes_per_number):
    return layers * kv_heads * head_dim * bytes_per_number


def one_layer(layers, kv_heads, head_dim, bytes_per_number):
    return 2 * kv_heads * head_dim * bytes_per_number


def numbers_not_bytes(layers, kv_heads, head_dim, bytes_per_number):
    return 2 * layers * kv_heads * head_dim


def bits(layers, kv_heads, head_dim, bytes_per_number):
    return 2 * layers * kv_heads * head_dim * bytes_per_number * 8


def heads_dealt_out(query, kv_heads):
    rows, heads, n, size = query.shape
    group = heads // kv_heads
    return query.view(rows, group, kv_heads, n, size).transpose(1, 2).reshape(rows, kv_heads, group * n, size)


def tokens_before_heads(query, kv_heads):
    rows, heads, n, size = query.shape
    group = heads // kv_heads
    return query.view(rows, kv_heads, group, n, size).transpose(2, 3).reshape(rows, kv_heads, group * n, size)


def heads_kept_apart(query, kv_heads):
    rows, heads, n, size = query.shape
    return query.view(rows, kv_heads, heads // kv_heads, n, size)


def one_head_of_each_group(query, kv_heads):
    return query[:, :: query.shape[1] // kv_heads]


def fewer_rows(query, kv_heads):
    rows, heads, n, size = query.shape
    return query.reshape(rows, kv_heads, n, heads // kv_heads * size)


WRONG = {
    "00b.1": [
        (keys_alone, "(yours is 0.5 times that)"),
        (one_layer, "(yours is 0.0333 times that)"),
        (numbers_not_bytes, "it is 11520, it should be 46080"),
        (bits, "(yours is 8 times that)"),
    ],
    "00b.2": [
        (heads_dealt_out, "(two heads share keys), at [0, 0, 1, 0]"),
        (tokens_before_heads, "(several sequences and tokens), at [0, 0, 1, 0]"),
        (heads_kept_apart, "its shape is (1, 2, 2, 1, 2), it should be (1, 2, 2, 2)"),
        (one_head_of_each_group, "its shape is (1, 2, 1, 2), it should be (1, 2, 2, 2)"),
        (fewer_rows, "its shape is (1, 2, 1, 4), it should be (1, 2, 2, 2)"),
    ],
}
