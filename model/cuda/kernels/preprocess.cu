// SPDX-License-Identifier: Apache-2.0
// Pictures as decoders make them to letterboxed, normalised canvases, a whole batch in one launch.
//
// The filter is the antialiased triangle, each component on its own grid, first down, then across. Places and
// weights are whole numbers, in units of half a sample over the other side's count: exact in int and in
// float, so every machine takes the same samples with the same weights. A block makes TILE_W x TILE_H pixels
// of one canvas. Of the source it holds CHUNK columns at a time, filtered down to the rows of its tile, so
// that any ratio needs the same memory. A thread filters four columns, which one load brings where they lie
// side by side.
//
// Needs before it: machine.h, look.h and OUT (0 float, 1 half, 2 bfloat16).

#define TILE_W 32
#define TILE_H 32                       // at most TILE_W
#define THREADS_Y 8
#define THREADS (TILE_W * THREADS_Y)
#define OUTPUTS (TILE_H / THREADS_Y)    // pixels a thread makes
#define FOUR 4
#define CHUNK 128
#define PAD 114.0f
#define ONE_LEVEL (1.0f / 255.0f)

// How neighbouring samples of a component are read.
#define SIDE_BY_SIDE 0  // four bytes at once
#define INTERLEAVED 1   // every other one of eight bytes, as the chroma of NV12
#define BYTES 2         // one by one
#define PAIRS 3         // of bytes, one by one

#if OUT == 0
typedef float Out;
__device__ __forceinline__ Out to_out(float value) { return value; }
#elif OUT == 1
typedef unsigned short Out;
__device__ __forceinline__ Out to_out(float value) { return HALF_BITS(value); }
#else
typedef unsigned short Out;
__device__ __forceinline__ Out to_out(float value)
{
    const unsigned bits = (unsigned)FLOAT_BITS(value);  // to nearest, ties to even; no NaN comes here
    return (unsigned short)((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}
#endif

// Samples first .. last-1 make one pixel. `start` is the distance of the first from the pixel's centre, and
// `scale` one over the sum of all weights.
struct Taps {
    int first, last;
    float start, scale;
};

// Four columns of one row.
struct __align__(16) Columns {
    float at[FOUR];
};

// How taps of `count_in` samples for `count_out` pixels are spaced, and how far from the centre they count.
struct Spacing {
    float step, reach;
};

__device__ __forceinline__ Spacing spacing_of(int count_in, int count_out)
{
    return {(float)(2 * count_out), (float)(2 * max(count_in, count_out))};
}

__device__ __forceinline__ float weight_at(float distance, float reach)
{
    return fmaxf(reach - fabsf(distance), 0.0f);
}

__device__ __forceinline__ Taps taps_of(int place, int count_in, int count_out)
{
    const Spacing spacing = spacing_of(count_in, count_out);
    const int step = 2 * count_out, reach = 2 * max(count_in, count_out);
    const int centre = (2 * place + 1) * count_in;
    const int low = centre - reach - count_out, high = centre + reach - count_out;
    Taps taps;
    taps.first = low < 0 ? 0 : low / step + 1;
    taps.last = min(count_in, (high + step - 1) / step);
    taps.start = (float)((2 * taps.first + 1) * count_out - centre);
    float total = 0.0f, distance = taps.start;
    for (int sample = taps.first; sample < taps.last; ++sample, distance += spacing.step)
        total += weight_at(distance, spacing.reach);
    taps.scale = 1.0f / total;
    return taps;
}

// Loads of several bytes stay within a row: rows begin at multiples of 64 bytes or of what is tested here.
__device__ __forceinline__ int reads_of(const Look& look, int component)
{
    const int across = look.across[component], down = look.down[component];
    if (look.wide) return PAIRS;
    if (across == 1 && down % 4 == 0) return SIDE_BY_SIDE;
    if (across == 2 && down % 8 == 0) return INTERLEAVED;
    return BYTES;
}

// The column at which loads that include `first` begin; it may lie before the component's own.
__device__ __forceinline__ int aligned(int first, unsigned long long origin, int reads)
{
    if (reads == SIDE_BY_SIDE) return first - (int)((origin + first) & 3);
    if (reads == INTERLEAVED) return first - (int)((origin + 2 * first) & 7) / 2;
    return first;
}

// Four columns from `column` on, filtered down to one row; what is beyond the last column is not used.
template <int READS>
__device__ __forceinline__ Columns filtered_down(
    const Look& look, int component, int column, int last_column, const Taps& taps, Spacing spacing)
{
    const long long across = look.across[component], down = look.down[component];
    unsigned long long at = look.origin[component] + (unsigned long long)(column * across + taps.first * down);
    const int odd = READS == INTERLEAVED ? (int)(at & 1) * 8 : 0;
    if (READS == INTERLEAVED) at &= ~7ULL;
    long long beside[FOUR];
    Columns sums;
#pragma unroll
    for (int j = 0; j < FOUR; ++j) {
        beside[j] = (min(column + j, last_column) - column) * across;
        sums.at[j] = 0.0f;
    }
    float distance = taps.start;
#pragma unroll 4
    for (int row = taps.first; row < taps.last; ++row, distance += spacing.step) {
        const float weight = weight_at(distance, spacing.reach);
        unsigned long long samples = 0;
        if (READS == SIDE_BY_SIDE) samples = LOAD32(at);
        if (READS == INTERLEAVED) samples = LOAD64(at) >> odd;
#pragma unroll
        for (int j = 0; j < FOUR; ++j) {
            unsigned sample = 0u;
            if (READS == SIDE_BY_SIDE) sample = (unsigned)samples >> 8 * j & 255u;
            if (READS == INTERLEAVED) sample = (unsigned)(samples >> 16 * j) & 255u;
            if (READS == BYTES) sample = LOAD8(at + (unsigned long long)beside[j]);
            if (READS == PAIRS) sample = LOAD16(at + (unsigned long long)beside[j]);
            sums.at[j] += weight * (float)sample;
        }
        at += (unsigned long long)down;
    }
    return sums;
}

// Filter the columns of one chunk down to the rows of the tile that show the picture.
template <int READS>
__device__ __forceinline__ void filter_chunk(
    const Look& look, int component, int chunk, int end, const Taps* down, int first_row, int last_row,
    Columns (*columns)[CHUNK / FOUR])
{
    const Spacing spacing = spacing_of(look.height[component], look.inner_h);
    const int groups = min((end - chunk + FOUR - 1) / FOUR, CHUNK / FOUR);
    const int shift = groups > 16 ? 5 : groups > 8 ? 4 : 3;  // 32, 16 or 8 threads share a row
    const int thread = threadIdx.y * TILE_W + threadIdx.x;
    const int group = thread & ((1 << shift) - 1);
    if (group >= groups) return;
    for (int row = first_row + (thread >> shift); row < last_row; row += THREADS >> shift)
        columns[row][group] =
            filtered_down<READS>(look, component, chunk + FOUR * group, end - 1, down[row], spacing);
}

extern "C" __global__ void __launch_bounds__(THREADS) letterbox_batch(
    const Look* __restrict__ looks,
    Out* __restrict__ canvases,
    int canvas_w,
    int canvas_h,
    long long image_stride,
    int channel_stride,
    int row_stride,
    int pixel_stride)
{
    __shared__ Taps across[2][TILE_W], down[2][TILE_H];  // of the first component, and of the other two
    __shared__ Columns columns[TILE_H][CHUNK / FOUR];
    const Look& look = looks[blockIdx.z];
    const int tx = threadIdx.x, ty = threadIdx.y;
    // Where the tile begins in the picture as it lies on the canvas, and what of the tile shows it.
    const int left = (int)blockIdx.x * TILE_W - look.left, top = (int)blockIdx.y * TILE_H - look.top;
    const int first_column = max(-left, 0), last_column = min(look.inner_w - left, TILE_W);
    const int first_row = max(-top, 0), last_row = min(look.inner_h - top, TILE_H);
    const bool shown = tx >= first_column && tx < last_column;

    float colour[3][OUTPUTS];
#pragma unroll
    for (int c = 0; c < 3; ++c)
#pragma unroll
        for (int k = 0; k < OUTPUTS; ++k) colour[c][k] = look.offset[c];

    if (first_column < last_column && first_row < last_row) {  // the same for all threads of a block
        if (ty < 2 && shown) across[ty][tx] = taps_of(left + tx, look.width[ty], look.inner_w);
        if (ty >= 2 && ty < 4 && tx >= first_row && tx < last_row)
            down[ty - 2][tx] = taps_of(top + tx, look.height[ty - 2], look.inner_h);
        __syncthreads();

        int rows[OUTPUTS];  // of the tile; one that does not show the picture computes as its neighbour
#pragma unroll
        for (int k = 0; k < OUTPUTS; ++k)
            rows[k] = min(max(ty + k * THREADS_Y, first_row), last_row - 1);

#pragma unroll 1
        for (int component = 0; component < 3; ++component) {
            const int grid = component > 0;
            const int reads = reads_of(look, component);
            const Taps taps = across[grid][min(max(tx, first_column), last_column - 1)];
            const Spacing spacing = spacing_of(look.width[component], look.inner_w);
            const int end = across[grid][last_column - 1].last;
            float sums[OUTPUTS];
#pragma unroll
            for (int k = 0; k < OUTPUTS; ++k) sums[k] = 0.0f;
            int chunk = aligned(across[grid][first_column].first, look.origin[component], reads);
            for (; chunk < end; chunk += CHUNK) {
                if (reads == SIDE_BY_SIDE)
                    filter_chunk<SIDE_BY_SIDE>(
                        look, component, chunk, end, down[grid], first_row, last_row, columns);
                else if (reads == INTERLEAVED)
                    filter_chunk<INTERLEAVED>(
                        look, component, chunk, end, down[grid], first_row, last_row, columns);
                else if (reads == BYTES)
                    filter_chunk<BYTES>(look, component, chunk, end, down[grid], first_row, last_row, columns);
                else
                    filter_chunk<PAIRS>(look, component, chunk, end, down[grid], first_row, last_row, columns);
                __syncthreads();
                const int first = max(taps.first, chunk), last = min(taps.last, chunk + CHUNK);
                float distance = taps.start + (float)(first - taps.first) * spacing.step;
                for (int column = first; column < last; ++column, distance += spacing.step) {
                    const float weight = weight_at(distance, spacing.reach);
#pragma unroll
                    for (int k = 0; k < OUTPUTS; ++k)
                        sums[k] += weight * ((const float*)columns[rows[k]])[column - chunk];
                }
                __syncthreads();
            }
#pragma unroll
            for (int k = 0; k < OUTPUTS; ++k) {
                const float level = sums[k] * (taps.scale * down[grid][rows[k]].scale);
#pragma unroll
                for (int c = 0; c < 3; ++c) colour[c][k] += look.matrix[3 * c + component] * level;
            }
        }
    }
#pragma unroll
    for (int k = 0; k < OUTPUTS; ++k) {
        const int row = ty + k * THREADS_Y;
        const int x = (int)blockIdx.x * TILE_W + tx, y = (int)blockIdx.y * TILE_H + row;
        if (x >= canvas_w || y >= canvas_h) continue;
        const bool inside = shown && row >= first_row && row < last_row;
        Out* pixel = canvases + (long long)blockIdx.z * image_stride + (long long)y * row_stride
            + (long long)x * pixel_stride;
#pragma unroll
        for (int c = 0; c < 3; ++c) {
            const float value = inside ? fminf(fmaxf(colour[c][k], 0.0f), 255.0f) : PAD;
            STORE(pixel + (long long)c * channel_stride, to_out(value * ONE_LEVEL));
        }
    }
}
