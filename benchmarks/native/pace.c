#define _GNU_SOURCE
#include "pace.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { MOST = 16, ROUNDS = 100, WORDS = 512 };

#define LATE UINT32_MAX

static struct watch {
    int processor;
    /* What each took, in ns, by the time that it was due at; 0: none was taken, LATE: it was late. */
    _Atomic uint32_t *looks;
} watches[MOST];
static int watched;
static uint64_t begun, places;

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Nanoseconds of processor time for the same work each time: chains that do not wait for each
 * other, since a core shared with another hardware thread is slower at what keeps all of it busy.
 * Aligned, or it would take longer in one program than in another. */
__attribute__((noinline, aligned(4096))) static uint64_t look(void)
{
    uint64_t words[WORDS] __attribute__((aligned(4096))) = {0};
    uint64_t before = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    uint64_t a = 1, b = 2, c = 3, d = 4;
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < WORDS; i += 4) {
            a = (a ^ words[i]) + 0x9e37;
            b = (b ^ words[i + 1]) + (a >> 7);
            c = (c + words[i + 2]) ^ 0x79b9;
            d = (d + words[i + 3]) ^ (c >> 9);
            words[i] = b;
            words[i + 2] = d;
        }
    /* Used, or the compiler would leave the work out. */
    __asm__ volatile("" : : "r"(a), "m"(words));
    return clock_ns(CLOCK_THREAD_CPUTIME_ID) - before;
}

static void *looking(void *argument)
{
    struct watch *watch = argument;
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(watch->processor, &only);
    if (sched_setaffinity(0, sizeof only, &only))
        return NULL;
    struct sched_param ahead = {1};
    int sure = !sched_setscheduler(0, SCHED_FIFO, &ahead);
    for (uint64_t place = 0; place < places; place++) {
        uint64_t due = begun + place * PACE_EVERY;
        struct timespec t = {(time_t)(due / 1000000000u), (long)(due % 1000000000u)};
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL))
            ;
        int late = sure && clock_ns(CLOCK_MONOTONIC) > due + PACE_LATE;
        uint64_t took = look();
        late |= sure && clock_ns(CLOCK_MONOTONIC) > due + PACE_LATE;
        watch->looks[place] = late || took > LATE ? LATE : (uint32_t)took;
    }
    return NULL;
}

void pace_begin(const char *processors, double seconds)
{
    begun = clock_ns(CLOCK_MONOTONIC);
    places = (uint64_t)(seconds * 1e9) / PACE_EVERY;
    for (char *rest; *processors && watched < MOST; processors = *rest ? rest + 1 : rest) {
        struct watch *watch = watches + watched++;
        pthread_t thread;
        watch->processor = (int)strtol(processors, &rest, 10);
        watch->looks = calloc(places, sizeof *watch->looks);
        if (rest == processors || !watch->looks ||
            pthread_create(&thread, NULL, looking, watch)) {
            fprintf(stderr, "pace: no thread for the processors %s\n", processors);
            exit(1);
        }
        pthread_detach(thread);
    }
}

int pace_kept(uint64_t from_ns, uint64_t to_ns, uint64_t fastest_ns)
{
    if (!watched)
        return 1;
    double most = PACE_SLOWER * (double)fastest_ns;
    uint64_t first = (from_ns - begun) / PACE_EVERY, end = (to_ns - begun) / PACE_EVERY;
    if (from_ns < begun || end > places)
        return 0;
    for (int i = 0; i < watched; i++) {
        uint64_t slow = 0;
        for (uint64_t place = first; place < end; place++) {
            uint32_t took = watches[i].looks[place];
            if (took == LATE)
                return 0;
            slow += !took || (double)took > most;
        }
        if (2 * slow >= end - first)
            return 0;
    }
    return 1;
}

static int shorter(const void *a, const void *b)
{
    uint32_t one = *(const uint32_t *)a, other = *(const uint32_t *)b;
    return one < other ? -1 : one > other;
}

uint64_t pace_fastest(void)
{
    uint32_t *all = malloc((size_t)watched * places * sizeof *all);
    size_t count = 0;
    for (int i = 0; all && i < watched; i++)
        for (uint64_t place = 0; place < places; place++) {
            uint32_t took = watches[i].looks[place];
            if (took && took != LATE)
                all[count++] = took;
        }
    if (!count) {
        fputs("pace: nothing is known of it\n", stderr);
        exit(1);
    }
    qsort(all, count, sizeof *all, shorter);
    uint64_t found = all[count / 100];
    free(all);
    return found;
}
