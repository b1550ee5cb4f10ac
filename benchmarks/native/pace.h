/* Whether processors run at their own pace: else times are of what their host does besides.
 *
 * A virtual processor that shares its core with another machine's is slower by a third to a half
 * for as long as that one is busy, for milliseconds or for hours, and no counter of this machine
 * tells: what a fixed piece of work takes does. And it may be taken away for some milliseconds
 * ("steal" in proc(5), /proc/stat): who has to run at once then runs late.
 */
#ifndef PACE_H
#define PACE_H

#include <stdint.h>

/* Nanoseconds between two looks at a processor; how many times longer than at its fastest a look
 * may take at a processor's own pace; and how late it may be, in nanoseconds. */
enum { PACE_EVERY = 2000000, PACE_LATE = 1000000 };
#define PACE_SLOWER 1.4

/* Look at these processors ("0,1") from now on, a hundredth of their time, for at most so many
 * seconds. Who may not be ahead of everybody else (SCHED_FIFO, sched(7)) does not know whether it
 * was late. */
void pace_begin(const char *processors, double seconds);
/* Whether all of them kept their pace between two times of now_ns(): most of the looks did, and
 * none was late. With none to look at there is nothing against it. fastest_ns: what a look takes at
 * its fastest. */
int pace_kept(uint64_t from_ns, uint64_t to_ns, uint64_t fastest_ns);
/* What a look takes at its fastest, in nanoseconds: one in a hundred of those so far was faster,
 * since a few are of a clock that was set right meanwhile. */
uint64_t pace_fastest(void);

#endif
