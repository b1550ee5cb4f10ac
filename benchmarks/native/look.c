/* What a look at these processors takes at its fastest, in so many seconds of looks, and what a
 * processor's own pace is: one JSON line.
 *
 *   look 0,1 5
 */
#define _GNU_SOURCE
#include "pace.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int main(int argc, char **argv)
{
    double seconds = argc == 3 ? atof(argv[2]) : 0;
    if (seconds <= 0) {
        fputs("usage: look PROCESSOR,PROCESSOR SECONDS\n", stderr);
        return 2;
    }
    struct timespec wait = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    pace_begin(argv[1], seconds);
    nanosleep(&wait, NULL);
    printf("{\"fastest_ns\": %lu, \"slower\": %g, \"every_ms\": %g, \"late_ms\": %g}\n",
           (unsigned long)pace_fastest(), PACE_SLOWER, PACE_EVERY / 1e6, PACE_LATE / 1e6);
    return 0;
}
