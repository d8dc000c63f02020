// From an image of any size to what the network sees, and where that lies in the image: the same
// as t2sda/runtime/letterbox.py.

function roundHalfEven(value) {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

/** Size [height, width] of the image within a frame [height, width], as large as it fits. */
export function innerSize([height, width], [frameHeight, frameWidth]) {
  const scale = Math.min(frameHeight / height, frameWidth / width);
  const fitted = (side, most) => Math.min(Math.max(roundHalfEven(side * scale), 1), most);
  return [fitted(height, frameHeight), fitted(width, frameWidth)];
}

/** For every new pixel: the two old ones that it lies between, and how near it is to the second. */
function neighbours(oldCount, newCount) {
  const first = new Int32Array(newCount);
  const second = new Int32Array(newCount);
  const share = new Float32Array(newCount);
  for (let index = 0; index < newCount; index += 1) {
    const place = Math.min(Math.max(((index + 0.5) * oldCount) / newCount - 0.5, 0), oldCount - 1);
    first[index] = Math.floor(place);
    second[index] = Math.min(first[index] + 1, oldCount - 1);
    share[index] = place - first[index];
  }
  return { first, second, share };
}

/**
 * RGBA pixels -> RGB pixels of a frame, the image bilinearly resized at its upper left.
 *
 * @param {Uint8ClampedArray} rgba (height * width * 4)
 * @param {[number, number]} size (height, width) of the image
 * @param {[number, number]} frame (height, width) that the network takes
 * @param {[number, number, number]} fill color of the rest
 * @returns {Uint8Array} (frame height * frame width * 3)
 */
export function letterboxed(rgba, [height, width], frame, fill) {
  const [innerHeight, innerWidth] = innerSize([height, width], frame);
  const out = new Uint8Array(frame[0] * frame[1] * 3);
  for (let index = 0; index < out.length; index += 3) out.set(fill, index);
  const rows = neighbours(height, innerHeight);
  const columns = neighbours(width, innerWidth);
  for (let y = 0; y < innerHeight; y += 1) {
    const upper = rows.first[y] * width;
    const lower = rows.second[y] * width;
    const down = rows.share[y];
    let target = y * frame[1] * 3;
    for (let x = 0; x < innerWidth; x += 1) {
      const left = columns.first[x];
      const right = columns.second[x];
      const across = columns.share[x];
      for (let channel = 0; channel < 3; channel += 1) {
        const a = rgba[(upper + left) * 4 + channel];
        const b = rgba[(upper + right) * 4 + channel];
        const c = rgba[(lower + left) * 4 + channel];
        const d = rgba[(lower + right) * 4 + channel];
        const top = a + (b - a) * across;
        out[target] = top + (c + (d - c) * across - top) * down + 0.5;
        target += 1;
      }
    }
  }
  return out;
}
