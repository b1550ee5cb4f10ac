/* Publishers and subscribers for servers of topics on 127.0.0.1: one thread, one epoll, one JSON line.
 *
 *   topics --port N --subscribers N --topics N --publishers N
 *
 * A client says "sub TOPIC" or "who", and is told "ok PID". "pub TOPIC TEXT" has TEXT sent to all
 * subscribers of the topic; each TEXT has a number, which says when it was sent, by whom, and how
 * many have not got it yet. Every message must reach every subscriber of its topic, whole, and once
 * in all; with one topic, in order.
 *
 * Without --rate there are always --window messages on their way. With it they are published evenly,
 * whether the server follows or not, and the kernel says when each arrived.
 *
 * With --watch only the time counts in which these processors kept their own pace (pace.h), found
 * out without a look at what was measured in it.
 */
#define _GNU_SOURCE
#include "client.h"
#include "histogram.h"
#include "pace.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>

enum { OPENING = 256, FLYING = 1 << 16, TEXTS = 112, MOST_PIDS = 16, NUMBER = 9 };
enum { WINDOW = 100000000 /* ns */, LEAD = 1 };

static struct {
    int port;
    uint32_t subscribers, topics, publishers, window, size, rate;
    double warmup, seconds, longest;
    const char *watch;
    uint64_t fastest;
} option = {.subscribers = 1000, .topics = 1, .publishers = 1, .window = 2, .size = 100,
            .warmup = 0.5, .seconds = 2};

/* A message on its way. */
static struct {
    uint64_t since; /* when it was sent, by the wall clock */
    uint32_t number, topic, left;
    int pid; /* the process that it was sent to */
    struct window *window; /* which it was sent in */
} flying[FLYING];

/* A tenth of a second: what arrived and what was used in it, and the times of what was sent in it. */
static struct window {
    uint64_t began, ended, delivered, completed;
    double server, own; /* seconds of processor time */
    struct histogram each, cross, last;
} *windows, *window; /* the last is for what does not count: before and after */
static uint32_t most, past;

static struct told {
    int pid;       /* the process that serves it */
    uint32_t last; /* the last message that it got */
} *told;

static int pids[MOST_PIDS], processes; /* of the server, as its answers say */
static uint32_t clients, opened, answered, published, numbers;
static uint64_t wrong;
static char filler[TEXTS + 1];

/* Seconds of processor time of the server's processes so far: clock_getcpuclockid(3). */
static double server_cpu(void)
{
    double total = 0;
    for (int i = 0; i < processes; i++) {
        clockid_t clock;
        struct timespec used;
        if (!clock_getcpuclockid(pids[i], &clock) && !clock_gettime(clock, &used))
            total += (double)used.tv_sec + (double)used.tv_nsec / 1e9;
    }
    return total;
}

static double own_cpu(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void die(const char *what)
{
    fprintf(stderr, "topics: %s\n", what);
    exit(1);
}

static void bad(const char *what)
{
    if (wrong++ < 5)
        fprintf(stderr, "topics: %s\n", what);
}

static void publish(void)
{
    char text[TEXTS + 32];
    uint32_t number = ++numbers, from = number % option.publishers;
    /* Whoever publishes, and wherever: no two neighbours in time are of one topic. */
    uint32_t topic = (uint32_t)((uint64_t)number * 7919 % option.topics);
    unsigned slot = number % FLYING;
    if (flying[slot].left)
        die("the server does not follow");
    flying[slot].number = number;
    flying[slot].topic = topic;
    flying[slot].left = option.subscribers / option.topics + (topic < option.subscribers % option.topics);
    flying[slot].pid = told[option.subscribers + from].pid;
    flying[slot].window = window;
    int length = snprintf(text, sizeof text, "pub t%u m%08x%s", topic, number,
                          filler + (TEXTS - (option.size - NUMBER)));
    flying[slot].since = wall_ns();
    published++;
    if (!send_small(conns + option.subscribers + from, text, (size_t)length))
        die("a publisher's socket is full");
}

static uint32_t hexadecimal(const char *text)
{
    uint32_t value = 0;
    for (int i = 0; i < 8; i++)
        value = value << 4 | (uint32_t)(text[i] <= '9' ? text[i] - '0' : text[i] - 'a' + 10);
    return value;
}

static void got(struct conn *c, const char *text, size_t length)
{
    uint32_t index = (uint32_t)(c - conns);
    if (text[0] == 'o') {
        char number[16] = {0};
        memcpy(number, text + 3, length - 3 < 15 ? length - 3 : 15);
        told[index].pid = atoi(number);
        answered++;
        int known = 0;
        for (int i = 0; i < processes; i++)
            known |= pids[i] == told[index].pid;
        if (!known && processes < MOST_PIDS)
            pids[processes++] = told[index].pid;
        return;
    }
    if (length != option.size || text[0] != 'm' ||
        memcmp(text + NUMBER, filler + (TEXTS - (length - NUMBER)), length - NUMBER)) {
        bad("a message is altered");
        return;
    }
    uint32_t number = hexadecimal(text + 1);
    unsigned slot = number % FLYING;
    if (flying[slot].number != number || !flying[slot].left || index >= option.subscribers ||
        flying[slot].topic != index % option.topics) {
        bad("a message came twice, or to somebody else");
        return;
    }
    if (number == told[index].last || (option.topics == 1 && number != told[index].last + 1))
        bad("a message came twice, or out of order");
    told[index].last = number;
    uint64_t now = c->stamped && arrived ? arrived : wall_ns();
    uint64_t took = now > flying[slot].since ? now - flying[slot].since : 0;
    struct window *sent = flying[slot].window;
    record(&sent->each, took);
    if (told[index].pid != flying[slot].pid)
        record(&sent->cross, took);
    window->delivered++;
    if (--flying[slot].left)
        return;
    record(&sent->last, took);
    window->completed++;
    published--;
    if (!option.rate)
        publish();
}

static void count_opened(struct conn *c)
{
    (void)c;
    opened++;
}

/* Open all connections, and have each say its first word, no more than OPENING at a time. */
static void begin_all(void)
{
    uint32_t next = 0;
    uint64_t deadline = now_ns() + 120000000000u;
    while (opened < clients) {
        while (next < clients && next - opened < OPENING)
            begin(conns + next++);
        turn(1000000000);
        if (errors || now_ns() > deadline)
            die("not all connections opened");
    }
    for (next = 0; answered < clients;) {
        for (; next < clients && next - answered < OPENING; next++) {
            char word[32] = "who";
            if (next < option.subscribers)
                snprintf(word, sizeof word, "sub t%u", next % option.topics);
            if (!send_small(conns + next, word, strlen(word)))
                die("a socket is full");
        }
        turn(1000000000);
        if (errors || now_ns() > deadline)
            die("not all subscriptions were answered");
    }
    if (option.rate)
        for (next = 0; next < option.subscribers; next++)
            stamp(conns + next);
}

static void run_for(double seconds)
{
    uint64_t begun = now_ns(), end = begun + (uint64_t)(seconds * 1e9), now;
    uint64_t every = option.rate ? 1000000000u / option.rate : 0, due = begun;
    while ((now = now_ns()) < end && !errors && wrong < 100) {
        uint64_t wait = end - now;
        if (every) {
            for (; due <= now; due += every)
                publish();
            wait = due - now;
        }
        turn((int64_t)wait);
    }
}

/* Whether window i counts: the processors kept their pace in it, and in the one before it, of which
 * something may have been left over. */
static int counts(uint32_t i)
{
    uint64_t from = i < LEAD ? windows[0].began - (LEAD - i) * WINDOW : windows[i - LEAD].began;
    return pace_kept(from, windows[i].ended, option.fastest);
}

/* Measure for so many seconds that count, or until --longest. Returns those that do. */
static double watch(void)
{
    double kept = 0;
    while (past < most && kept < option.seconds && !errors && wrong < 100) {
        window = windows + past++;
        window->began = now_ns();
        window->server = -server_cpu();
        window->own = -own_cpu();
        run_for(WINDOW / 1e9);
        window->ended = now_ns();
        window->server += server_cpu();
        window->own += own_cpu();
        /* The looks of the last one may be on their way. */
        if (past > 1 && counts(past - 2))
            kept += (double)(windows[past - 2].ended - windows[past - 2].began) / 1e9;
    }
    window = windows + most;
    return kept;
}

/* The sum of the windows that count, or of all, as one that began at 0. */
static void summed(struct window *sum, int all)
{
    for (uint32_t i = 0; i < past; i++) {
        if (!all && !counts(i))
            continue;
        sum->ended += windows[i].ended - windows[i].began;
        sum->delivered += windows[i].delivered;
        sum->completed += windows[i].completed;
        sum->server += windows[i].server;
        sum->own += windows[i].own;
        add(&sum->each, &windows[i].each);
        add(&sum->cross, &windows[i].cross);
        add(&sum->last, &windows[i].last);
    }
}

static void measure(void)
{
    static struct window sum, whole;
    /* Workers tell each other of their subscribers. */
    uint32_t rate = option.rate;
    option.rate = 0;
    run_for(1);
    option.rate = rate;
    if (!option.rate)
        for (uint32_t i = 0; i < option.window; i++)
            publish();
    run_for(option.warmup);
    double kept = watch();
    option.rate = option.rate ? option.rate : 1; /* no more of them */
    for (uint64_t deadline = now_ns() + 20000000000u; published && now_ns() < deadline && !errors;)
        turn(1000000000);
    if (published)
        die("some messages did not reach everybody");
    /* Less than a quarter of what was wanted is too little for any figure. */
    int steady = kept >= option.seconds / 4;
    summed(&sum, !steady);
    summed(&whole, 1);
    double seconds = (double)sum.ended / 1e9;
    printf("{\"deliveries_per_s\": %.0f, \"publishes_per_s\": %.0f, \"last_p50_ms\": %.3f, "
           "\"last_p99_ms\": %.3f, \"each_p50_ms\": %.3f, \"each_p99_ms\": %.3f, "
           "\"cross_p50_ms\": %.3f, \"cross_p99_ms\": %.3f, \"cross_p99_whole_ms\": %.3f, "
           "\"cross_share\": %.3f, \"per_cpu_s\": %.0f, \"server_cpu\": %.3f, \"load_cpu\": %.3f, "
           "\"steady\": %d, \"kept_s\": %.1f, \"measured_s\": %.1f, \"errors\": %lu}\n",
           (double)sum.delivered / seconds, (double)sum.completed / seconds,
           quantile_ms(&sum.last, 0.5), quantile_ms(&sum.last, 0.99), quantile_ms(&sum.each, 0.5),
           quantile_ms(&sum.each, 0.99), quantile_ms(&sum.cross, 0.5),
           quantile_ms(&sum.cross, 0.99), quantile_ms(&whole.cross, 0.99),
           sum.each.count ? (double)sum.cross.count / (double)sum.each.count : 0,
           sum.server > 0 ? (double)sum.delivered / sum.server : 0, sum.server / seconds,
           sum.own / seconds, steady, kept, (double)whole.ended / 1e9,
           errors + wrong);
}

static const char *usage =
    "usage: topics --port N [options]\n"
    "  --subscribers N  connections with one topic each (default 1000)\n"
    "  --topics N       which they share evenly (default 1)\n"
    "  --publishers N   further connections (default 1)\n"
    "  --size N         bytes of each message, 9 to 112 (default 100)\n"
    "  --window N       messages on their way (default 2)\n"
    "  --rate N         messages published per second instead, evenly\n"
    "  --warmup S       seconds before anything is measured (default 0.5)\n"
    "  --seconds S      seconds measured (default 2)\n"
    "  --watch A,B      processors that must keep their pace meanwhile, or it does not count\n"
    "  --fastest NS     what a look at one takes at its fastest, as look.c finds out\n"
    "  --longest S      seconds until enough must have counted (default: --seconds)\n";

static void options(int argc, char **argv)
{
    static const struct option known[] = {
        {"port", 1, 0, 'p'},   {"subscribers", 1, 0, 'c'}, {"topics", 1, 0, 'o'},
        {"size", 1, 0, 's'},   {"publishers", 1, 0, 'u'},  {"window", 1, 0, 'n'},
        {"rate", 1, 0, 'a'},   {"warmup", 1, 0, 'w'},      {"seconds", 1, 0, 't'},
        {"watch", 1, 0, 'e'},  {"fastest", 1, 0, 'f'},     {"longest", 1, 0, 'l'},
        {0, 0, 0, 0}};
    for (int o; (o = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (o) {
        case 'p': option.port = atoi(optarg); break;
        case 'c': option.subscribers = (uint32_t)atoi(optarg); break;
        case 'o': option.topics = (uint32_t)atoi(optarg); break;
        case 's': option.size = (uint32_t)atoi(optarg); break;
        case 'u': option.publishers = (uint32_t)atoi(optarg); break;
        case 'n': option.window = (uint32_t)atoi(optarg); break;
        case 'a': option.rate = (uint32_t)atoi(optarg); break;
        case 'w': option.warmup = atof(optarg); break;
        case 't': option.seconds = atof(optarg); break;
        case 'e': option.watch = optarg; break;
        case 'f': option.fastest = strtoull(optarg, NULL, 10); break;
        case 'l': option.longest = atof(optarg); break;
        default: fputs(usage, stderr); exit(2);
        }
    }
    if (optind != argc || !option.port || !option.subscribers || !option.publishers ||
        !option.topics || option.topics > option.subscribers || option.size < NUMBER ||
        option.size > TEXTS || !option.window || option.window > FLYING / 2) {
        fputs(usage, stderr);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    struct rlimit files;
    /* Whoever started this wants it gone with it. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    options(argc, argv);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    for (int i = 0; i < TEXTS; i++)
        filler[i] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"[i % 32];
    clients = option.subscribers + option.publishers;
    client_setup(option.port, clients);
    told = calloc(clients, sizeof *told);
    if (option.longest < option.seconds)
        option.longest = option.seconds;
    most = (uint32_t)(option.longest * 1e9 / WINDOW);
    windows = calloc(most + 1, sizeof *windows);
    if (!told || !windows)
        die("no memory");
    window = windows + most;
    driver.opened = count_opened;
    driver.text = got;
    begin_all();
    /* A second until everybody knows of everybody, the warm-up, and what is late. */
    if (option.watch)
        pace_begin(option.watch, option.longest * 2 + option.warmup + 30);
    measure();
    /* Thousands of ports in TIME_WAIT would be in the next run's way. */
    for (uint32_t i = 0; i < clients; i++)
        if (conns[i].fd >= 0)
            drop(conns + i);
    return 0;
}
