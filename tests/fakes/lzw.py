"""The compressor that memberlist has and quorumlog does not need."""


def compress(data: bytes, *, clear_after: int | None = None) -> bytes:
    """LZW, LSB first, 8-bit literals; a clear code whenever the table is full, as Go does,
    or after ``clear_after`` codes."""
    bits = bit_count = 0
    packed = bytearray()
    width, table = 9, {bytes([value]): value for value in range(256)}

    def put(code: int) -> None:
        nonlocal bits, bit_count
        bits |= code << bit_count
        bit_count += width
        while bit_count >= 8:
            packed.append(bits & 255)
            bits >>= 8
            bit_count -= 8

    put(256)
    word, next_code, codes = b"", 257, 0
    for value in data:
        longer = word + bytes([value])
        if longer in table:
            word = longer
            continue
        put(table[word])
        codes += 1
        next_code += 1
        if next_code == 1 << width and width < 12:
            width += 1
        if next_code == 4095 or codes == clear_after:
            put(256)
            width, table = 9, {bytes([literal]): literal for literal in range(256)}
            next_code, codes = 257, 0
        else:
            table[longer] = next_code
        word = bytes([value])
    if word:
        put(table[word])
        next_code += 1
        if next_code == 1 << width and width < 12:
            width += 1
    put(257)
    if bit_count:
        packed.append(bits & 255)
    return bytes(packed)
