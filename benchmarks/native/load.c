/* A load generator for WebSocket servers on 127.0.0.1: one thread, one epoll, one JSON line.
 *
 *   load echo       each connection has one text in flight, always; the echo is compared
 *   load handshakes connections are opened and closed without pause
 *   load idle       connections are held, pings answered, until standard input ends
 *   load fanout     one connection says go, and all of them must get the message
 *   load pauses     one connection probes each millisecond while others come and go
 *
 * --size mix draws each text's size from 16 B to 16 KiB, evenly by logarithm: half of the texts are
 * shorter than 512 B, the mean is about 2.4 KB.
 */
#define _GNU_SOURCE
#include "client.h"
#include "histogram.h"

#include <getopt.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

enum { OPENING = 256, SIZES = 4096, TOO_MANY = 1000 };

static struct {
    int port, pid;
    uint32_t connections, size, rounds, rate, count;
    double warmup, seconds;
    int mix, frame;
} option = {.connections = 50, .size = 32, .rounds = 20, .rate = 300, .warmup = 0.5, .seconds = 2,
            .frame = 1};

static uint64_t done;    /* what the mode counts */
static uint32_t opened;  /* connections that got through the handshake */
static uint16_t sizes[SIZES];

static struct histogram times;
static uint64_t longest;

static void took(uint64_t ns)
{
    record(&times, ns);
    if (ns > longest)
        longest = ns;
}

static void forget(void)
{
    memset(&times, 0, sizeof times);
    longest = done = 0;
}

/* Seconds of processor time of the server so far, in user and kernel mode: proc(5), stat. */
static double server_cpu(void)
{
    char path[64], line[1024];
    unsigned long user = 0, kernel = 0;
    if (!option.pid)
        return 0;
    snprintf(path, sizeof path, "/proc/%d/stat", option.pid);
    FILE *stat = fopen(path, "r");
    if (stat && fgets(line, sizeof line, stat)) {
        char *rest = strrchr(line, ')');
        if (rest)
            sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &kernel);
    }
    if (stat)
        fclose(stat);
    return (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK);
}

static double own_cpu(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

/* The end of what is measured, and what it cost. */
struct span {
    uint64_t began;
    double seconds, server, own;
};

static struct span span_begin(void)
{
    forget();
    return (struct span){.began = now_ns(), .server = server_cpu(), .own = own_cpu()};
}

static void span_end(struct span *s)
{
    s->seconds = (double)(now_ns() - s->began) / 1e9;
    s->server = server_cpu() - s->server;
    s->own = own_cpu() - s->own;
}

static void run_for(double seconds)
{
    uint64_t end = now_ns() + (uint64_t)(seconds * 1e9), now;
    while ((now = now_ns()) < end)
        turn((int64_t)(end - now));
}

/* Open all connections, no more than OPENING at a time. */
static void open_all(void)
{
    uint32_t next = 0;
    uint64_t deadline = now_ns() + 120000000000u;
    while (opened < option.connections) {
        while (next < option.connections && next - opened < OPENING)
            begin(conns + next++);
        turn(1000000000);
        if (errors || now_ns() > deadline) {
            fprintf(stderr, "load: %u of %u connections opened\n", opened, option.connections);
            exit(1);
        }
    }
}

/* At the end: thousands of ports in TIME_WAIT would be in the next run's way. */
static void drop_all(uint32_t room)
{
    for (uint32_t i = 0; i < room; i++)
        if (conns[i].fd >= 0)
            drop(conns + i);
}

static void next_text(struct conn *c)
{
    uint64_t draw = random64();
    c->size = option.mix ? sizes[draw % SIZES] : option.size;
    c->at = (uint32_t)(draw >> 40) % STARTS;
    c->since = now_ns();
    send_text(c);
}

static void count_opened(struct conn *c)
{
    (void)c;
    opened++;
}

static void echoed(struct conn *c)
{
    took(now_ns() - c->since);
    done++;
    next_text(c);
}

static void echo(void)
{
    driver.opened = count_opened;
    driver.message = echoed;
    open_all();
    for (uint32_t i = 0; i < option.connections; i++)
        next_text(conns + i);
    run_for(option.warmup);
    struct span s = span_begin();
    run_for(option.seconds);
    span_end(&s);
    printf("{\"messages_per_s\": %.0f, \"p50_us\": %.1f, \"p99_us\": %.1f, "
           "\"server_cpu_us\": %.3f, \"load_cpu\": %.3f, \"errors\": %lu}\n",
           (double)done / s.seconds, quantile_ms(&times, 0.5) * 1e3,
           quantile_ms(&times, 0.99) * 1e3,
           done ? s.server * 1e6 / (double)done : 0, s.own / s.seconds, errors);
}

/* Connections that may be begun again. Not from within their own events: failures would recurse. */
static uint32_t *spare, spares;

static void put_back(struct conn *c)
{
    spare[spares++] = (uint32_t)(c - conns);
}

static void leave(struct conn *c)
{
    done++;
    if (option.frame) {
        send_close(c);
    } else {
        drop(c);
        put_back(c);
    }
}

static void timed(struct conn *c)
{
    took(now_ns() - c->since);
    leave(c);
}

static void come_and_go(double seconds)
{
    uint64_t end = now_ns() + (uint64_t)(seconds * 1e9);
    uint32_t started = 0;
    while (now_ns() < end && errors < TOO_MANY) {
        for (; spares && !(option.count && started == option.count); started++)
            begin(conns + spare[--spares]);
        if (option.count && spares == option.connections)
            return; /* and the last one has said goodbye */
        turn(10000000);
    }
}

static void handshakes(void)
{
    driver.opened = timed;
    driver.ended = driver.failed = put_back;
    for (uint32_t i = 0; i < option.connections; i++)
        put_back(conns + i);
    if (!option.count)
        come_and_go(option.warmup);
    struct span s = span_begin();
    come_and_go(option.seconds);
    span_end(&s);
    printf("{\"handshakes_per_s\": %.0f, \"p50_us\": %.1f, \"p99_us\": %.1f, "
           "\"server_cpu_us\": %.3f, \"load_cpu\": %.3f, \"errors\": %lu}\n",
           (double)done / s.seconds, quantile_ms(&times, 0.5) * 1e3,
           quantile_ms(&times, 0.99) * 1e3,
           done ? s.server * 1e6 / (double)done : 0, s.own / s.seconds, errors);
}

/* Each line on standard input is answered with the counts so far; its end is the end. */
static void idle(void)
{
    char line[64];
    driver.opened = count_opened;
    open_all();
    printf("{\"open\": %u}\n", opened);
    fflush(stdout);
    watch_extra(STDIN_FILENO);
    for (;;) {
        if (!turn(-1))
            continue;
        ssize_t n = read(STDIN_FILENO, line, sizeof line);
        printf("{\"pings\": %lu, \"errors\": %lu}\n", pings, errors);
        fflush(stdout);
        if (n <= 0)
            return;
    }
}

static void delivered(struct conn *c)
{
    (void)c;
    done++;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void fanout(void)
{
    double *ms = calloc(option.rounds, sizeof *ms);
    driver.opened = count_opened;
    driver.message = delivered;
    pattern_begin("go");
    open_all();
    for (uint32_t i = 0; i < option.connections; i++)
        conns[i].size = option.size;
    run_for(option.warmup);
    struct span s = span_begin();
    for (uint32_t r = 0; r < option.rounds; r++) {
        uint64_t began = now_ns();
        done = 0;
        send_text(conns);
        while (done < option.connections && !errors && now_ns() - began < 30000000000u)
            turn(1000000000);
        if (done != option.connections) {
            fprintf(stderr, "load: %lu of %u got the message\n", done, option.connections);
            exit(1);
        }
        ms[r] = (double)(now_ns() - began) / 1e6;
        /* What a server does after a fan-out belongs to none. */
        run_for(0.05);
    }
    span_end(&s);
    qsort(ms, option.rounds, sizeof *ms, ascending);
    double median = ms[option.rounds / 2];
    printf("{\"deliveries_per_s\": %.0f, \"median_ms\": %.2f, \"server_cpu_us\": %.3f, "
           "\"errors\": %lu}\n",
           option.connections / median * 1e3, median,
           s.server * 1e6 / option.rounds / option.connections, errors);
}

static void probe_opened(struct conn *c)
{
    opened++;
    if (c != conns)
        leave(c);
}

static uint64_t probe; /* when the probe under way was sent, by the wall clock; 0: there is none */

static void probed(struct conn *c)
{
    (void)c;
    took((arrived > probe ? arrived : wall_ns()) - probe);
    probe = 0;
}

/* The longest round trip is the server's longest pause. The kernel says when the reply arrived, so
 * that it does not matter when this process got to run and read it. */
static void pauses(void)
{
    uint64_t begun = 0;
    option.connections = 1;
    driver.opened = probe_opened;
    driver.message = probed;
    open_all();
    stamp(conns);
    driver.ended = driver.failed = put_back;
    for (uint32_t i = 1; i < OPENING; i++)
        put_back(conns + i);
    struct span s = span_begin();
    uint64_t end = s.began + (uint64_t)(option.seconds * 1e9), next = s.began, now = s.began;
    for (; now < end && errors < TOO_MANY; now = now_ns()) {
        if (now >= next) {
            next = now + 1000000;
            if (!probe) {
                probe = wall_ns();
                next_text(conns);
            }
            double due = (double)(now - s.began) / 1e9 * option.rate;
            for (; (double)begun < due && spares; begun++)
                begin(conns + spare[--spares]);
        }
        turn((int64_t)(next - now));
    }
    uint64_t probes = times.count;
    if (probe)
        took(wall_ns() - probe);
    span_end(&s);
    printf("{\"longest_ms\": %.2f, \"p99_ms\": %.3f, \"probes_per_s\": %.0f, "
           "\"handshakes_per_s\": %.0f, \"load_cpu\": %.3f, \"errors\": %lu}\n",
           (double)longest / 1e6, quantile_ms(&times, 0.99), (double)probes / s.seconds,
           (double)done / s.seconds, s.own / s.seconds, errors);
}

static const char *usage =
    "usage: load MODE --port N [options]\n"
    "modes: echo handshakes idle fanout pauses\n"
    "  --connections N  held at the same time (handshakes: in progress at the same time)\n"
    "  --size N|mix     bytes of each text, at most 16384 (default 32)\n"
    "  --warmup S       seconds before anything is measured (default 0.5)\n"
    "  --seconds S      seconds measured (default 2)\n"
    "  --pid N          the server's process, whose processor time is told per message\n"
    "  --rounds N       fanout: how many (default 20)\n"
    "  --rate N         pauses: how many others come and go each second (default 300)\n"
    "  --close HOW      handshakes: frame (default) or drop\n"
    "  --count N        handshakes: stop after so many\n";

static void options(int argc, char **argv)
{
    static const struct option known[] = {
        {"port", 1, 0, 'p'},    {"connections", 1, 0, 'c'}, {"size", 1, 0, 's'},
        {"warmup", 1, 0, 'w'},  {"seconds", 1, 0, 't'},     {"pid", 1, 0, 'i'},
        {"rounds", 1, 0, 'r'},  {"rate", 1, 0, 'a'},        {"close", 1, 0, 'e'},
        {"count", 1, 0, 'n'},   {0, 0, 0, 0}};
    for (int o; (o = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (o) {
        case 'p': option.port = atoi(optarg); break;
        case 'c': option.connections = (uint32_t)atoi(optarg); break;
        case 's':
            option.mix = !strcmp(optarg, "mix");
            option.size = (uint32_t)atoi(optarg);
            break;
        case 'w': option.warmup = atof(optarg); break;
        case 't': option.seconds = atof(optarg); break;
        case 'i': option.pid = atoi(optarg); break;
        case 'r': option.rounds = (uint32_t)atoi(optarg); break;
        case 'a': option.rate = (uint32_t)atoi(optarg); break;
        case 'e': option.frame = !strcmp(optarg, "frame"); break;
        case 'n': option.count = (uint32_t)atoi(optarg); break;
        default: fputs(usage, stderr); exit(2);
        }
    }
    if (optind != argc - 1 || !option.port || !option.connections || option.size > LONGEST ||
        (!option.mix && option.size < 2)) {
        fputs(usage, stderr);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } modes[] = {{"echo", echo}, {"handshakes", handshakes}, {"idle", idle}, {"fanout", fanout},
                 {"pauses", pauses}};
    struct rlimit files;
    /* Whoever started this wants it gone with it. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    options(argc, argv);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    uint32_t room = option.connections > OPENING ? option.connections : OPENING;
    client_setup(option.port, room);
    spare = calloc(room, sizeof *spare);
    for (int i = 0; i < SIZES; i++)
        sizes[i] = (uint16_t)(16 * exp2(10.0 * (i + 0.5) / SIZES));
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        if (!strcmp(argv[optind], modes[i].name)) {
            modes[i].run();
            drop_all(room);
            return 0;
        }
    }
    fputs(usage, stderr);
    return 2;
}
