// SPDX-License-Identifier: Apache-2.0
// What the kernels ask of the machine they run on, besides arithmetic. This is a GPU; the tests have another
// such file, for a processor, which checks every address. The kernels use no warp operation and no library.

#define LOAD8(at) __ldg((const unsigned char*)(at))
#define LOAD16(at) __ldg((const unsigned short*)(at))
#define LOAD32(at) __ldg((const unsigned int*)(at))
#define LOAD64(at) __ldg((const unsigned long long*)(at))
#define LOAD(at) __ldg(at)
#define STORE(at, value) (*(at) = (value))

// Never contracted to one operation of one rounding: a processor's result, to the bit.
#define EXACT_MUL(a, b) __fmul_rn(a, b)
#define EXACT_ADD(a, b) __fadd_rn(a, b)
#define EXACT_SUB(a, b) __fsub_rn(a, b)

#define FLOAT_BITS(value) __float_as_int(value)
#define BITS_FLOAT(bits) __int_as_float(bits)

// Four of eight bytes, by four digits of `digits`, the lowest first.
#define CHOOSE_BYTES(low, high, digits) __byte_perm(low, high, digits)

// Two numbers of 16 bits times the lower two bytes of a word, or the upper two, added to a sum.
__device__ __forceinline__ unsigned DOT_LOW(unsigned two, unsigned bytes, unsigned sum)
{
    asm("dp2a.lo.u32.u32 %0, %1, %2, %3;" : "=r"(sum) : "r"(two), "r"(bytes), "r"(sum));
    return sum;
}
__device__ __forceinline__ unsigned DOT_HIGH(unsigned two, unsigned bytes, unsigned sum)
{
    asm("dp2a.hi.u32.u32 %0, %1, %2, %3;" : "=r"(sum) : "r"(two), "r"(bytes), "r"(sum));
    return sum;
}

__device__ __forceinline__ unsigned short HALF_BITS(float value)
{
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
