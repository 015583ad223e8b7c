type TypedArray = Float64Array | Uint32Array | Uint16Array | Uint8Array;
type TypedArrayOf<T extends TypedArray> = {
  new (buffer: ArrayBuffer): T;
  readonly BYTES_PER_ELEMENT: number;
};

const FIRST_ROWS = 16_384;

/**
 * A table kept as one typed array per column: a row costs the sum of its columns' sizes and nothing for the garbage collector to walk.
 * The address space for `maxRows` is reserved at once and filled as rows come; memory is used only for what is filled.
 */
export class Columns {
  readonly #buffers: { buffer: ArrayBuffer; bytes: number }[] = [];
  #capacity: number;
  #rows = 0;

  constructor(readonly maxRows: number) {
    this.#capacity = Math.min(FIRST_ROWS, maxRows);
  }

  get rows(): number {
    return this.#rows;
  }

  /** Declares a column of `width` elements a row; the array it answers grows with the table. New rows hold 0. */
  column<T extends TypedArray>(type: TypedArrayOf<T>, width = 1): T {
    const bytes = type.BYTES_PER_ELEMENT * width;
    const buffer = new ArrayBuffer(this.#capacity * bytes, { maxByteLength: this.maxRows * bytes });
    this.#buffers.push({ buffer, bytes });
    return new type(buffer);
  }

  /** Adds `count` rows and answers the first one's index, or undefined when they would go beyond `maxRows`. */
  add(count: number): number | undefined {
    const first = this.#rows;
    if (first + count > this.maxRows) return undefined;
    this.#rows += count;
    if (this.#rows > this.#capacity) this.#grow();
    return first;
  }

  #grow(): void {
    this.#capacity = Math.min(this.maxRows, Math.max(this.#rows, this.#capacity * 2));
    for (const { buffer, bytes } of this.#buffers) buffer.resize(this.#capacity * bytes);
  }
}
