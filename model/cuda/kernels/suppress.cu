// SPDX-License-Identifier: Apache-2.0
// Greedy suppression of ranked candidates, one block an image: exactly what model/suppression.py keeps.
//
// A candidate's key holds its score turned over in the high half and its place (anchor * classes + class) in
// the low half, so that ascending keys are falling scores and equal scores go by place. NONE comes behind.
//
// Candidates are taken BLOCK at a time, best first, and compared with the boxes kept so far. Then each notes
// which better ones of its block would drop it, and in rounds, who has a kept one among these is dropped, who
// has none left that is open is kept. A round settles at least the best that is open, and whoever is
// settled is settled as he would be one by one. It ends with the last box asked for.
//
// Needs before it: machine.h and MAX_BOXES.

#define NONE 0x7FFFFFFFFFFFFFFFLL
#define BLOCK 256
#define WORDS (BLOCK / 32)
#define HEAD 8  // ints before the boxes of an image: how many, ticket, zeros
#define ROW 6   // of a box: left, top, right, bottom, score, class

struct Box {
    float left, top, right, bottom, area;
    int label;
};

__device__ __forceinline__ bool drops(const Box& better, const Box& worse, float max_iou, int class_aware)
{
    if (class_aware && better.label != worse.label) return false;
    const float left = fmaxf(better.left, worse.left), right = fminf(better.right, worse.right);
    const float top = fmaxf(better.top, worse.top), bottom = fminf(better.bottom, worse.bottom);
    const float width = fmaxf(EXACT_SUB(right, left), 0.0f);
    const float height = fmaxf(EXACT_SUB(bottom, top), 0.0f);
    const float shared = EXACT_MUL(width, height);
    const float both = EXACT_SUB(EXACT_ADD(better.area, worse.area), shared);
    return shared > EXACT_MUL(max_iou, both);
}

extern "C" __global__ void __launch_bounds__(BLOCK) suppress_ranked(
    const long long* __restrict__ keys,  // images x num_keys, ascending
    const float* __restrict__ boxes,     // images x num_anchors x 4
    const int* __restrict__ tickets,     // one an image, ticket_stride ints apart
    int ticket_stride,
    int num_keys,
    int num_anchors,
    int num_classes,
    int max_boxes,                       // at most MAX_BOXES
    float max_iou,
    int class_aware,
    int* __restrict__ found)             // images x (HEAD + ROW * max_boxes)
{
    __shared__ Box kept[MAX_BOXES];
    __shared__ Box block[BLOCK];
    __shared__ unsigned open_bits[WORDS], kept_bits[WORDS];
    __shared__ int num_kept, ended;
    const int t = threadIdx.x, word = t / 32;
    const unsigned bit = 1u << (t % 32);
    const long long image = blockIdx.x;
    int* result = found + image * (HEAD + ROW * max_boxes);
    keys += image * num_keys;
    boxes += image * num_anchors * 4;
    if (t == 0) num_kept = ended = 0;
    __syncthreads();

    for (int first = 0; first < num_keys; first += BLOCK) {
        const long long key = first + t < num_keys ? LOAD(keys + first + t) : NONE;
        Box mine = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, -1};
        float score = 0.0f;
        if (key != NONE) {
            const unsigned place = (unsigned)(key & 0xFFFFFFFFLL);
            const float* corners = boxes + 4LL * (place / (unsigned)num_classes);
            mine.left = LOAD(corners + 0);
            mine.top = LOAD(corners + 1);
            mine.right = LOAD(corners + 2);
            mine.bottom = LOAD(corners + 3);
            mine.label = (int)(place % (unsigned)num_classes);
            const float width = fmaxf(EXACT_SUB(mine.right, mine.left), 0.0f);
            mine.area = EXACT_MUL(width, fmaxf(EXACT_SUB(mine.bottom, mine.top), 0.0f));
            score = BITS_FLOAT(0x7FFFFFFF - (int)(key >> 32));
        } else {
            ended = 1;  // every writer writes the same
        }
        block[t] = mine;
        if (t < WORDS) open_bits[t] = kept_bits[t] = 0u;
        __syncthreads();

        const int before = num_kept;
        bool open = key != NONE;
        for (int k = 0; k < before && open; ++k) open = !drops(kept[k], mine, max_iou, class_aware);
        if (open) atomicOr(&open_bits[word], bit);
        __syncthreads();

        unsigned droppers[WORDS];  // the better ones of the block that would drop this one
#pragma unroll
        for (int w = 0; w < WORDS; ++w) {
            const unsigned better = open_bits[w];
            droppers[w] = 0u;
            for (int j = 0; j < 32 && open && 32 * w + j < t; ++j)
                if ((better >> j & 1u) && drops(block[32 * w + j], mine, max_iou, class_aware))
                    droppers[w] |= 1u << j;
        }
        __syncthreads();

        for (bool any = true; any;) {  // what a round reads, and `any`, is not written between two barriers
            bool dropped = false, waits = false;
#pragma unroll
            for (int w = 0; w < WORDS; ++w) {
                dropped = dropped || (droppers[w] & kept_bits[w]);
                waits = waits || (droppers[w] & open_bits[w]);
            }
            __syncthreads();
            if (open && (dropped || !waits)) {
                if (!dropped) atomicOr(&kept_bits[word], bit);
                atomicAnd(&open_bits[word], ~bit);
                open = false;
            }
            __syncthreads();
            any = false;
#pragma unroll
            for (int w = 0; w < WORDS; ++w) any = any || open_bits[w];
        }

        int rank = before, total = before;
#pragma unroll
        for (int w = 0; w < WORDS; ++w) {
            if (w < word) rank += __popc(kept_bits[w]);
            total += __popc(kept_bits[w]);
        }
        rank += __popc(kept_bits[word] & (bit - 1u));
        if ((kept_bits[word] & bit) && rank < max_boxes) {
            kept[rank] = mine;
            int* row = result + HEAD + ROW * rank;
            STORE(row + 0, FLOAT_BITS(mine.left));
            STORE(row + 1, FLOAT_BITS(mine.top));
            STORE(row + 2, FLOAT_BITS(mine.right));
            STORE(row + 3, FLOAT_BITS(mine.bottom));
            STORE(row + 4, FLOAT_BITS(score));
            STORE(row + 5, mine.label);
        }
        const bool last = ended || total >= max_boxes;
        __syncthreads();
        if (t == 0) num_kept = min(total, max_boxes);
        __syncthreads();
        if (last) break;
    }
    const int count = num_kept;
    const int ticket = LOAD(tickets + image * ticket_stride);
    for (int i = t; i < HEAD; i += BLOCK) STORE(result + i, i == 0 ? count : i == 1 ? ticket : 0);
    for (int i = HEAD + ROW * count + t; i < HEAD + ROW * max_boxes; i += BLOCK) STORE(result + i, 0);
}
