// SPDX-License-Identifier: Apache-2.0
// Pictures as decoders make them to letterboxed, normalised canvases, a whole batch in one launch.
//
// The filter is the antialiased triangle, each component on its own grid, first down, then across. Places and
// weights are whole numbers, in units of half a sample over the other side's count, so every machine takes
// the same samples with the same weights; those of bytes are added up in whole numbers too. A block makes
// TILE_W x TILE_H pixels of one canvas. Of the source it holds CHUNK columns at a time, filtered down to the
// rows of its tile, and of their weights SEGMENT a row, so that any ratio needs the same memory. A thread
// filters four columns, which one load brings where they lie side by side, and has four rows on their way.
//
// Needs before it: machine.h, look.h and OUT (0 float, 1 half, 2 bfloat16).

#define TILE_W 32
#define TILE_H 32                       // as TILE_W: a row of threads fills a list of either
#define THREADS_Y 8
#define THREADS (TILE_W * THREADS_Y)
#define OUTPUTS (TILE_H / THREADS_Y)    // pixels a thread makes
#define FOUR 4
#define CHUNK 128
#define SEGMENT 32
#define ROWS_AT_ONCE 4
#define PAD 114.0f
#define ONE_LEVEL (1.0f / 255.0f)

// How neighbouring samples of a component are read.
#define SIDE_BY_SIDE 0  // four bytes at once
#define INTERLEAVED 1   // every other one of eight bytes, as the chroma of NV12
#define ONE_BY_ONE 2    // whatever lies otherwise, or has two bytes

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

// How far taps are from one to the next, and how far from the centre they count: both exact as floats.
struct Spacing {
    float step, reach;
};

// Of one row.
struct __align__(16) Columns {
    float at[FOUR];
};

// Two weights of 16 bits each, one row after the other; the last two are there so that lists begin in other banks.
typedef unsigned Weights[SEGMENT / 2 + 2];

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
#pragma unroll 1
    for (int sample = taps.first; sample < taps.last; ++sample, distance += spacing.step)
        total += weight_at(distance, spacing.reach);
    taps.scale = 1.0f / total;
    return taps;
}

// The same for rows, which are taken ROWS_AT_ONCE: more of them, without a weight, as far as the picture has some.
__device__ __forceinline__ Taps rows_of(int place, int count_in, int count_out)
{
    Taps taps = taps_of(place, count_in, count_out);
    const int count = (taps.last - taps.first + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE * ROWS_AT_ONCE;
    const int first = max(min(taps.first, count_in - count), 0);
    taps.start -= (float)(taps.first - first) * spacing_of(count_in, count_out).step;
    taps.first = first;
    taps.last = first + count;
    return taps;
}

// The weights of one segment for a row of the tile, by the threads of one column.
__device__ __forceinline__ void fill_weights(
    Weights& weights, const Taps& rows, Spacing spacing, int segment, int count_in)
{
    const int first = rows.first + segment, last = min(rows.last, first + SEGMENT);
#pragma unroll 1
    for (int row = first + 2 * threadIdx.y; row < last; row += 2 * THREADS_Y) {
        const float distance = rows.start + (float)(row - rows.first) * spacing.step;
        const unsigned upper = (unsigned)(int)weight_at(distance, spacing.reach);
        const unsigned lower = (unsigned)(int)weight_at(distance + spacing.step, spacing.reach);
        weights[(row - first) / 2] = (row + 1 < count_in ? lower << 16 : 0u) | (row < count_in ? upper : 0u);
    }
}

// Loads of several bytes stay within a row, since rows begin at multiples of 64 bytes or of what is tested here, and
// within the picture, since it has room for as many rows as make a pixel, in whole ROWS_AT_ONCE.
__device__ __forceinline__ int reads_of(const Look& look, int component)
{
    const int across = look.across[component], down = look.down[component];
    const int height = look.height[component];
    const bool room = (height - ROWS_AT_ONCE) * look.inner_h >= 2 * max(height, look.inner_h);
    if (look.wide || !room) return ONE_BY_ONE;
    if (across == 1 && down % 4 == 0) return SIDE_BY_SIDE;
    if (across == 2 && down % 8 == 0) return INTERLEAVED;
    return ONE_BY_ONE;
}

// The column at which loads that include `first` begin; it may lie before the component's own.
__device__ __forceinline__ int aligned(int first, unsigned long long origin, int reads)
{
    if (reads == SIDE_BY_SIDE) return first - (int)((origin + first) & 3);
    if (reads == INTERLEAVED) return first - (int)((origin + 2 * first) & 7) / 2;
    return first;
}

// Where four columns of a component lie.
struct Place {
    unsigned long long at;  // of the first, in the first row
    int down;               // bytes from row to row
    unsigned choice;        // of INTERLEAVED: the even or the odd of eight bytes
};

template <int READS>
__device__ __forceinline__ Place place_of(const Look& look, int component, int column)
{
    Place place;
    place.at = look.origin[component] + (unsigned long long)((long long)column * look.across[component]);
    place.down = look.down[component];
    place.choice = place.at & 1 ? 0x7531u : 0x6420u;
    if (READS == INTERLEAVED) place.at &= ~7ULL;
    return place;
}

__device__ __forceinline__ unsigned long long row_of(const Place& place, int row)
{
    return place.at + (unsigned long long)(long long)(row * place.down);  // planes have less than 2^31 bytes
}

// Four bytes of a row, which begins at `at`, in one word, the first lowest.
template <int READS>
__device__ __forceinline__ unsigned four_bytes(unsigned long long at, unsigned choice)
{
    if (READS == SIDE_BY_SIDE) return LOAD32(at);
    const unsigned long long eight = LOAD64(at);
    return CHOOSE_BYTES((unsigned)eight, (unsigned)(eight >> 32), choice);
}

// Add up `count` rows of four columns, each times its weight: bytes, two rows by one operation.
template <int READS>
__device__ __forceinline__ Columns filtered_bytes(const Place& place, int first, int count, const Weights& weights)
{
    const unsigned long long down = (unsigned long long)(long long)place.down;
    unsigned long long at = row_of(place, first);
    unsigned sums[FOUR] = {0u, 0u, 0u, 0u};  // those of a segment stay below 2^32
#pragma unroll 1
    for (int row = 0; row < count; row += ROWS_AT_ONCE) {
        unsigned samples[ROWS_AT_ONCE];
#pragma unroll
        for (int j = 0; j < ROWS_AT_ONCE; ++j) {
            samples[j] = four_bytes<READS>(at, place.choice);
            at += down;
        }
#pragma unroll
        for (int j = 0; j < ROWS_AT_ONCE; j += 2) {
            const unsigned two = weights[(row + j) / 2];
            const unsigned left = CHOOSE_BYTES(samples[j], samples[j + 1], 0x5140u);
            const unsigned right = CHOOSE_BYTES(samples[j], samples[j + 1], 0x7362u);
            sums[0] = DOT_LOW(two, left, sums[0]);
            sums[1] = DOT_HIGH(two, left, sums[1]);
            sums[2] = DOT_LOW(two, right, sums[2]);
            sums[3] = DOT_HIGH(two, right, sums[3]);
        }
    }
    return {{(float)sums[0], (float)sums[1], (float)sums[2], (float)sums[3]}};
}

// The same, sample by sample. The last column and row stand for those beyond them, which are not used.
__device__ __forceinline__ Columns filtered_one_by_one(
    const Look& look, int component, int column, int last_column, int first, int count, const Weights& weights)
{
    const int across = look.across[component], last_row = look.height[component] - 1;
    const Place place = place_of<ONE_BY_ONE>(look, component, column);
    Columns sums = {{0.0f, 0.0f, 0.0f, 0.0f}};
#pragma unroll 1
    for (int row = 0; row < count; ++row) {
        const unsigned long long at = row_of(place, min(first + row, last_row));
        const float weight = (float)(weights[row / 2] >> 16 * (row % 2) & 0xFFFFu);
#pragma unroll
        for (int j = 0; j < FOUR; ++j) {
            const int beside = (min(column + j, last_column) - column) * across;
            const unsigned long long sample = at + (unsigned long long)(long long)beside;
            sums.at[j] += weight * (float)(look.wide ? LOAD16(sample) : LOAD8(sample));
        }
    }
    return sums;
}

// Filter the columns of one chunk down to the rows of the tile that show the picture, by one segment.
template <int READS>
__device__ __forceinline__ void filter_chunk(
    const Look& look, int component, int chunk, int end, const Taps* down, const Weights* weights, int segment,
    int first_row, int last_row, Columns (*columns)[CHUNK / FOUR])
{
    const int groups = min((end - chunk + FOUR - 1) / FOUR, CHUNK / FOUR);
    const int shift = groups > 16 ? 5 : groups > 8 ? 4 : 3;  // 32, 16 or 8 threads share a row
    const int thread = threadIdx.y * TILE_W + threadIdx.x;
    const int group = thread & ((1 << shift) - 1);
    if (group >= groups) return;
    const int column = chunk + FOUR * group;
    const Place place = place_of<READS>(look, component, column);
#pragma unroll 1
    for (int row = first_row + (thread >> shift); row < last_row; row += THREADS >> shift) {
        const int first = down[row].first + segment;
        const int count = min(down[row].last - first, SEGMENT);
        Columns sums = READS == ONE_BY_ONE
            ? filtered_one_by_one(look, component, column, end - 1, first, count, weights[row])
            : filtered_bytes<READS>(place, first, count, weights[row]);
        if (segment > 0)
#pragma unroll
            for (int j = 0; j < FOUR; ++j) sums.at[j] += columns[row][group].at[j];
        columns[row][group] = sums;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 3) letterbox_batch(
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
    __shared__ Weights weights[2][TILE_H];
    __shared__ Columns columns[TILE_H][CHUNK / FOUR];
    const Look& look = looks[blockIdx.z];
    const int tx = threadIdx.x, ty = threadIdx.y;
    // Where the tile begins in the picture as it lies on the canvas, and what of the tile shows it.
    const int left = (int)blockIdx.x * TILE_W - look.left, top = (int)blockIdx.y * TILE_H - look.top;
    const int first_column = max(-left, 0), last_column = min(look.inner_w - left, TILE_W);
    const int first_row = max(-top, 0), last_row = min(look.inner_h - top, TILE_H);
    const bool column_shown = tx >= first_column && tx < last_column;
    const bool row_filled = tx >= first_row && tx < last_row;

    float colour[3][OUTPUTS];
#pragma unroll
    for (int c = 0; c < 3; ++c)
#pragma unroll
        for (int k = 0; k < OUTPUTS; ++k) colour[c][k] = look.offset[c];

    if (first_column < last_column && first_row < last_row) {  // the same for all threads of a block
        if (ty < 2 && column_shown) across[ty][tx] = taps_of(left + tx, look.width[ty], look.inner_w);
        if (ty >= 2 && ty < 4 && row_filled)
            down[ty - 2][tx] = rows_of(top + tx, look.height[ty - 2], look.inner_h);
        __syncthreads();
#pragma unroll 1
        for (int grid = 0; grid < 2; ++grid)
            if (row_filled)
                fill_weights(
                    weights[grid][tx], down[grid][tx], spacing_of(look.height[grid], look.inner_h), 0,
                    look.height[grid]);
        __syncthreads();

        // What does not show the picture computes too, for nothing: columns as their neighbour, rows as it comes.
        const int column = min(max(tx, first_column), last_column - 1);

#pragma unroll 1
        for (int component = 0; component < 3; ++component) {
            const int grid = component > 0;
            const int reads = reads_of(look, component);
            const Spacing spacing = spacing_of(look.width[component], look.inner_w);
            const Spacing rows_apart = spacing_of(look.height[component], look.inner_h);
            const bool refills = (float)SEGMENT * rows_apart.step <= 2.0f * rows_apart.reach;
            const int end = across[grid][last_column - 1].last;
            float sums[OUTPUTS];
#pragma unroll
            for (int k = 0; k < OUTPUTS; ++k) sums[k] = 0.0f;
            int chunk = aligned(across[grid][first_column].first, look.origin[component], reads);
            for (; chunk < end; chunk += CHUNK) {
                for (int segment = 0; (float)segment * rows_apart.step <= 2.0f * rows_apart.reach;
                     segment += SEGMENT) {
                    if (refills) {
                        if (row_filled)
                            fill_weights(
                                weights[grid][tx], down[grid][tx], rows_apart, segment, look.height[component]);
                        __syncthreads();
                    }
#define FILTER(READS)                                                                                         \
    filter_chunk<READS>(                                                                                      \
        look, component, chunk, end, down[grid], weights[grid], segment, first_row, last_row, columns)
                    if (reads == SIDE_BY_SIDE)
                        FILTER(SIDE_BY_SIDE);
                    else if (reads == INTERLEAVED)
                        FILTER(INTERLEAVED);
                    else
                        FILTER(ONE_BY_ONE);
#undef FILTER
                    __syncthreads();
                }
                const Taps taps = across[grid][column];
                const int first = max(taps.first, chunk), last = min(taps.last, chunk + CHUNK);
                float distance = taps.start + (float)(first - taps.first) * spacing.step;
#pragma unroll 1
                for (int place = first; place < last; ++place, distance += spacing.step) {
                    const float weight = weight_at(distance, spacing.reach);
#pragma unroll
                    for (int k = 0; k < OUTPUTS; ++k)
                        sums[k] += weight * ((const float*)columns[ty + k * THREADS_Y])[place - chunk];
                }
                __syncthreads();
            }
#pragma unroll
            for (int k = 0; k < OUTPUTS; ++k) {
                const float scale = across[grid][column].scale * down[grid][ty + k * THREADS_Y].scale;
                const float level = sums[k] * scale;
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
        const bool shown = column_shown && row >= first_row && row < last_row;
        Out* pixel = canvases + (long long)blockIdx.z * image_stride + (long long)y * row_stride
            + (long long)x * pixel_stride;
#pragma unroll
        for (int c = 0; c < 3; ++c) {
            const float value = shown ? fminf(fmaxf(colour[c][k], 0.0f), 255.0f) : PAD;
            STORE(pixel + (long long)c * channel_stride, to_out(value * ONE_LEVEL));
        }
    }
}
