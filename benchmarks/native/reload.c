/* Clients that watch a reload, of a server on 127.0.0.1 whose answers have this form:
 *
 *   NNNNNNNN PPPPPPPP the text that came
 *
 * with the number of texts that the connection has sent, and the id of the process that answers.
 *
 *   reload hold   connections are open and idle; whoever closes them is noted
 *   reload talk   each connection sends a numbered text, awaits its answer, thinks, and again
 *
 * The first line on standard output says that the connections are open (hold and talk: that each
 * had its first answer). Then each line on standard input is answered with one, in JSON; its end is
 * the end. "check" has every held connection send a text and get the right answer first. "stop"
 * has talkers await their last answers, and what they saw written to a file.
 */
#define _GNU_SOURCE
#include "client.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    TEXT = 32,                   /* bytes of a text */
    ANSWER = 9 + 9 + TEXT,       /* and of its answer */
    SLOTS = 1024,                /* of the wheel of thinkers: a millisecond each */
    CODES = 5000,                /* close codes are below that (RFC 6455 section 7.4) */
    PIDS = 256,                  /* processes that answer, at most */
    CHECKING = 256,              /* texts in flight in a check */
    PATIENCE = 30,               /* seconds until an answer is given up */
    LIFETIME = 1800,             /* and this process, whatever happens to who started it */
};
#define NOBODY 0xffffffffu
#define MS 1000000ull

static struct {
    int port;
    uint32_t connections, window, think;
    const char *samples;
} option = {.connections = 1, .window = 256, .think = 20};

/* What a connection has said. */
struct talk {
    uint32_t number;  /* of its last text */
    uint32_t next;    /* in its slot of the wheel */
    uint32_t pid;     /* who answered last */
    uint64_t sent;    /* when, by the wall clock; 0: it is answered */
};
static struct talk *talks;

/* What talkers saw: one answer. Written to the file as it is, so without padding. */
struct sample {
    uint64_t sent;         /* ns, wall clock */
    uint32_t round_trip;   /* µs */
    uint32_t connection, pid, number;
};
static struct sample *samples;
static size_t sampled, room_for_samples;

static uint32_t opened, in_flight;
static uint64_t sent, answered, lost, doubled, reordered, miscounted;
static uint64_t moved; /* how often another process answered a connection than before */
static uint32_t closed_with[CODES];
static uint64_t closed_first, closed_last;
static uint32_t pids[PIDS];
static int talking, stopping;
static uint32_t wheel[SLOTS];
static uint64_t wheel_at; /* the millisecond whose slot is next */

static void count_opened(struct conn *c)
{
    opened++;
    if (talking)
        stamp(c);
}

static void say(struct conn *c)
{
    struct talk *t = talks + (c - conns);
    char text[TEXT + 1];
    snprintf(text, sizeof text, "%08u%24s", ++t->number, "ABCDEFGHIJKLMNOPQRSTUVWX");
    t->sent = wall_ns();
    in_flight++;
    sent++;
    /* If the socket is broken, its event tells. */
    send_small(c, text, TEXT);
}

static void think(uint32_t i)
{
    /* Between half and one and a half of it, so that nobody is in step. */
    uint64_t ms = option.think / 2 + random64() % (option.think + 1);
    uint32_t slot = (uint32_t)((now_ns() / MS + ms + 1) % SLOTS);
    talks[i].next = wheel[slot];
    wheel[slot] = i;
}

static void keep_sample(uint32_t i, uint32_t pid, uint64_t round_trip)
{
    if (sampled == room_for_samples) {
        room_for_samples = room_for_samples ? room_for_samples * 2 : 1 << 20;
        samples = realloc(samples, room_for_samples * sizeof *samples);
        if (!samples) {
            perror("reload: samples");
            exit(1);
        }
    }
    samples[sampled++] = (struct sample){
        talks[i].sent, (uint32_t)(round_trip / 1000), i, pid, talks[i].number};
}

static void note_pid(struct talk *t, uint32_t pid)
{
    if (t->pid == pid)
        return;
    moved += t->pid != 0;
    t->pid = pid;
    for (unsigned i = 0; i < PIDS && pids[i] != pid; i++) {
        if (!pids[i]) {
            pids[i] = pid;
            break;
        }
    }
}

static void heard(struct conn *c, const char *payload, size_t length)
{
    uint32_t i = (uint32_t)(c - conns);
    struct talk *t = talks + i;
    char text[ANSWER + 1];
    unsigned count, pid, number;
    if (length != ANSWER) {
        miscounted++;
        return;
    }
    memcpy(text, payload, ANSWER);
    text[ANSWER] = 0;
    if (sscanf(text, "%8u %8u %8u", &count, &pid, &number) != 3 ||
        strcmp(text + 18 + 8, "ABCDEFGHIJKLMNOPQRSTUVWX")) {
        miscounted++;
        return;
    }
    if (!t->sent || number < t->number) {
        doubled++;
        return;
    }
    reordered += number > t->number;
    miscounted += count != number;
    uint64_t now = c->stamped && arrived > t->sent ? arrived : wall_ns();
    answered++;
    in_flight--;
    note_pid(t, pid);
    if (talking)
        keep_sample(i, pid, now - t->sent);
    t->sent = 0;
    if (talking && !stopping)
        think(i);
}

static void was_closed(struct conn *c, unsigned code)
{
    struct talk *t = talks + (c - conns);
    closed_with[code < CODES ? code : CODES - 1]++;
    closed_last = wall_ns();
    if (!closed_first)
        closed_first = closed_last;
    if (t->sent) {
        t->sent = 0;
        lost++;
        in_flight--;
    }
}

/* Something that no server should do; counted as a connection lost without a word. */
static void went_wrong(struct conn *c)
{
    was_closed(c, 1006);
}

/* Open all connections, no more than the window's at a time. */
static void open_all(void)
{
    uint32_t next = 0;
    uint64_t deadline = now_ns() + 180000 * MS;
    while (opened < option.connections) {
        while (next < option.connections && next - opened < option.window)
            begin(conns + next++);
        turn(1000 * (int64_t)MS);
        if (errors || now_ns() > deadline) {
            fprintf(stderr, "reload: %u of %u connections opened\n", opened, option.connections);
            exit(1);
        }
    }
}

/* Have every open connection say something, and wait for the answers. */
static void check(void)
{
    uint64_t deadline = now_ns() + PATIENCE * 1000 * MS;
    for (uint32_t i = 0; i < option.connections || in_flight;) {
        for (; i < option.connections && in_flight < CHECKING; i++)
            if (conns[i].phase == OPEN && !talks[i].sent)
                say(conns + i);
        if (in_flight)
            turn(100 * (int64_t)MS);
        if (now_ns() > deadline)
            break;
    }
}

static void report(void)
{
    uint32_t open = 0;
    for (uint32_t i = 0; i < option.connections; i++)
        open += conns[i].phase == OPEN;
    printf("{\"open\": %u, \"pings\": %lu, \"sent\": %lu, \"answered\": %lu, \"lost\": %lu, "
           "\"doubled\": %lu, \"reordered\": %lu, \"miscounted\": %lu, \"moved\": %lu, "
           "\"closed_first\": %lu, \"closed_last\": %lu, \"pids\": [",
           open, pings, sent, answered, lost + in_flight, doubled, reordered, miscounted, moved,
           closed_first, closed_last);
    for (unsigned i = 0; i < PIDS && pids[i]; i++)
        printf("%s%u", i ? ", " : "", pids[i]);
    printf("], \"closed\": {");
    const char *comma = "";
    for (unsigned code = 0; code < CODES; code++) {
        if (closed_with[code]) {
            printf("%s\"%u\": %u", comma, code, closed_with[code]);
            comma = ", ";
        }
    }
    puts("}}");
    fflush(stdout);
}

/* The next line of standard input: 'c'heck, 's'top, anything else, or 0 at its end. */
static char command(void)
{
    char line[64];
    ssize_t n = read(STDIN_FILENO, line, sizeof line);
    return n > 0 ? line[0] : 0;
}

static void hold(void)
{
    open_all();
    check();
    report();
    watch_extra(STDIN_FILENO);
    for (char told = 1; told;) {
        if (!turn(-1))
            continue;
        told = command();
        if (told == 'c')
            check();
        report();
    }
}

/* Let those speak who have thought enough. */
static void speak(void)
{
    for (uint64_t now = now_ns() / MS; wheel_at <= now; wheel_at++) {
        uint32_t i = wheel[wheel_at % SLOTS];
        wheel[wheel_at % SLOTS] = NOBODY;
        while (i != NOBODY) {
            uint32_t next = talks[i].next;
            if (conns[i].phase == OPEN && !stopping)
                say(conns + i);
            i = next;
        }
    }
}

static void write_samples(void)
{
    FILE *file = fopen(option.samples, "wb");
    if (!file || fwrite(samples, sizeof *samples, sampled, file) != sampled || fclose(file)) {
        perror("reload: writing the samples");
        exit(1);
    }
}

static void talk(void)
{
    talking = 1;
    open_all();
    stopping = 1; /* nobody thinks yet */
    check();
    stopping = 0;
    sampled = 0;
    report();
    watch_extra(STDIN_FILENO);
    wheel_at = now_ns() / MS;
    for (uint32_t i = 0; i < option.connections; i++)
        think(i);
    for (char told = 1; told;) {
        if (turn((int64_t)MS)) {
            told = command();
            if (told == 's') {
                uint64_t deadline = now_ns() + PATIENCE * 1000 * MS;
                stopping = 1;
                while (in_flight && now_ns() < deadline)
                    turn(100 * (int64_t)MS);
                write_samples();
            }
            report();
        }
        if (!stopping)
            speak();
    }
}

static const char *usage =
    "usage: reload hold|talk --port N [options]\n"
    "  --connections N  held at the same time (default 1)\n"
    "  --window N       opened at a time (default 256)\n"
    "  --think MS       talk: between an answer and the next text, on average (default 20)\n"
    "  --samples FILE   talk: where answers are written, 24 bytes each\n";

static void options(int argc, char **argv)
{
    static const struct option known[] = {{"port", 1, 0, 'p'},    {"connections", 1, 0, 'c'},
                                          {"window", 1, 0, 'w'},  {"think", 1, 0, 't'},
                                          {"samples", 1, 0, 's'}, {0, 0, 0, 0}};
    for (int o; (o = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (o) {
        case 'p': option.port = atoi(optarg); break;
        case 'c': option.connections = (uint32_t)atoi(optarg); break;
        case 'w': option.window = (uint32_t)atoi(optarg); break;
        case 't': option.think = (uint32_t)atoi(optarg); break;
        case 's': option.samples = optarg; break;
        default: fputs(usage, stderr); exit(2);
        }
    }
    if (optind != argc - 1 || !option.port || !option.connections || !option.window ||
        option.think * 3 / 2 + 2 > SLOTS) {
        fputs(usage, stderr);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    struct rlimit files;
    /* Whoever started this wants it gone with it. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(LIFETIME);
    options(argc, argv);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    client_setup(option.port, option.connections);
    talks = calloc(option.connections, sizeof *talks);
    memset(wheel, 0xff, sizeof wheel);
    driver.opened = count_opened;
    driver.text = heard;
    driver.closed = was_closed;
    driver.failed = went_wrong;
    if (!strcmp(argv[optind], "hold")) {
        hold();
    } else if (!strcmp(argv[optind], "talk") && option.samples) {
        talk();
    } else {
        fputs(usage, stderr);
        return 2;
    }
    /* Thousands of ports in TIME_WAIT would be in the next run's way. */
    for (uint32_t i = 0; i < option.connections; i++)
        if (conns[i].fd >= 0)
            drop(conns + i);
    return 0;
}
