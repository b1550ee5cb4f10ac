/* Durations in buckets of 3 %: 32 to each power of two. */
#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#include <stdint.h>

enum { BUCKETS = 64 * 32 };

struct histogram {
    uint32_t buckets[BUCKETS];
    uint64_t count;
};

static inline void record(struct histogram *h, uint64_t ns)
{
    /* Below 64 each nanosecond has its bucket; above, the leading one and five bits choose it. */
    unsigned shift = ns < 64 ? 0 : 58u - (unsigned)__builtin_clzll(ns);
    h->buckets[shift * 32 + (ns >> shift)]++;
    h->count++;
}

static inline void add(struct histogram *to, const struct histogram *from)
{
    for (unsigned i = 0; i < BUCKETS; i++)
        to->buckets[i] += from->buckets[i];
    to->count += from->count;
}

static inline double quantile_ms(const struct histogram *h, double part)
{
    uint64_t rank = (uint64_t)(part * (double)h->count), seen = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen > rank) {
            unsigned shift = i < 64 ? 0 : i / 32 - 1;
            return (double)(i - shift * 32) * (double)(1ull << shift) / 1e6;
        }
    }
    return 0;
}

#endif
