/* Whether processors run at their own pace: else times are of what their host does besides.
 *
 * A virtual processor that shares its core with another machine's is slower by a third to a half
 * for as long as that one is busy, for milliseconds or for hours, and no counter of this machine
 * tells. What a fixed piece of work takes does.
 */
#ifndef PACE_H
#define PACE_H

#include <stdint.h>

/* Nanoseconds between two looks at a processor, and how many times longer than at its fastest a
 * look may take at a processor's own pace. */
enum { PACE_EVERY = 10000000 };
#define PACE_SLOWER 1.4

/* Look at these processors ("0,1") from now on, a hundredth of their time, for at most so many
 * seconds.
 * fastest_ns: what a look took once, at its fastest; 0: not known yet. */
void pace_begin(const char *processors, uint64_t fastest_ns, double seconds);
/* Whether all of them kept their pace between two times of now_ns(): most of the looks did. */
int pace_kept(uint64_t from_ns, uint64_t to_ns);
/* What the fastest look took, in nanoseconds. */
uint64_t pace_fastest(void);

#endif
