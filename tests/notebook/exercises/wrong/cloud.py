"""Wrong answers to the exercises of notebook 12."""

from zlib import crc32

from helpers.cloud.prices import blended_price


def _framed(headers, payload, total, order="big", checked=None):
    prelude = total.to_bytes(4, order) + len(headers).to_bytes(4, order)
    whole = prelude + crc32(prelude).to_bytes(4, order) + headers + payload
    return whole + crc32(whole if checked is None else checked).to_bytes(4, order)


def forgets_the_last_checksum_in_the_total(headers, payload):
    return _framed(headers, payload, 12 + len(headers) + len(payload))


def little_endian(headers, payload):
    return _framed(headers, payload, 16 + len(headers) + len(payload), "little")


def checks_the_payload_alone(headers, payload):
    return _framed(headers, payload, 16 + len(headers) + len(payload), checked=payload)


def for_tokens_of_answers(per_hour, tokens_per_second, input_to_output, discount):
    return blended_price(per_hour, tokens_per_second, 0.0, discount)


def a_second_instead_of_an_hour(per_hour, tokens_per_second, input_to_output, discount):
    return 3600 * blended_price(per_hour, tokens_per_second, input_to_output, discount)


def the_discount_is_the_price(per_hour, tokens_per_second, input_to_output, discount):
    return blended_price(per_hour, tokens_per_second, input_to_output, 1 - discount)


WRONG = {
    "12.1": [
        (forgets_the_last_checksum_in_the_total, r"(no headers), it is b'\x00\x00\x00\x11"),
        (little_endian, r"(no headers), it is b'\x15"),
        (checks_the_payload_alone, r"(no headers), it is b'\x00\x00\x00\x15"),
    ],
    "12.2": [
        (for_tokens_of_answers, "(the published one), it is 7.3259"),
        (a_second_instead_of_an_hour, "(the published one)"),
        (the_discount_is_the_price, "(the published one), it is 0,"),
    ],
}
