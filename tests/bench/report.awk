# Turns rows of (round, cell, target, p50 ms, p99 ms, requests/s, cpu us per request, mock's cpu us per request) into
# min / median / max over the rounds, and the ratios that the aims are about. JSON=file writes the same as JSON.

function sorted(list, out,    n, i, j, v) {
    n = split(list, out, " ")
    for (i = 2; i <= n; i++) {
        v = out[i] + 0
        for (j = i - 1; j >= 1 && out[j] + 0 > v; j--) out[j + 1] = out[j]
        out[j + 1] = v
    }
    return n
}
function low(list,    a) { sorted(list, a); return a[1] }
function high(list,    a, n) { n = sorted(list, a); return a[n] }
function median(list,    a, n) {
    n = sorted(list, a)
    return n % 2 ? a[(n + 1) / 2] + 0 : (a[n / 2] + a[n / 2 + 1]) / 2
}
function three(list, digits,    f) {
    f = "%." digits "f / %." digits "f / %." digits "f"
    return sprintf(f, low(list), median(list), high(list))
}
function js(list) { return sprintf("{\"min\": %g, \"median\": %g, \"max\": %g}", low(list), median(list), high(list)) }
function noise(list,    m) { m = median(list); return m > 0 ? 100 * (high(list) - low(list)) / m : 0 }
function ratio(a, b) { return b > 0 ? sprintf("%.2f", a / b) : "-" }
function verdict(name, value, aim, unit,    word) {
    word = value <= aim ? "met   " : "MISSED"
    if (value > aim) missed++
    printf "  %s %-52s %8.3f %s (aim <= %g)\n", word, name, value, unit, aim
}

{
    key = $2 SUBSEP $3
    if (!($2 in cells)) { cells[$2] = 1; order[++ncells] = $2 }
    seen[key] = 1
    p50[key] = p50[key] " " $4; p99[key] = p99[key] " " $5; rps[key] = rps[key] " " $6
    cpu[key] = cpu[key] " " $7; mock[key] = mock[key] " " $8
}

END {
    has_nginx = ("1k-c64" SUBSEP "nginx") in seen
    ntargets = split("direct nginx gateway", targets, " ")
    printf "\n%-10s %-8s %26s %26s %28s %10s %8s\n", "cell", "target", "p50 ms min/median/max", "p99 ms min/median/max", "CPU us/request min/med/max", "requests/s", "x nginx"
    out = ""
    for (c = 1; c <= ncells; c++) for (t = 1; t <= ntargets; t++) {
        key = order[c] SUBSEP targets[t]
        if (!(key in seen)) continue
        base = cpu[order[c] SUBSEP "nginx"]
        has_cpu = targets[t] != "direct"
        printf "%-10s %-8s %26s %26s %28s %10.0f %8s\n", order[c], targets[t], three(p50[key], 3), three(p99[key], 3), \
            has_cpu ? three(cpu[key], 1) : "-", median(rps[key]), has_cpu && base != "" ? ratio(median(cpu[key]), median(base)) : "-"
        out = out (out == "" ? "" : ",\n") sprintf("    {\"cell\": \"%s\", \"target\": \"%s\", \"p50_ms\": %s, \"p99_ms\": %s, \"cpu_us\": %s, \"mock_cpu_us\": %s, \"requests_per_sec\": %s}", \
            order[c], targets[t], js(p50[key]), js(p99[key]), has_cpu ? js(cpu[key]) : "null", js(mock[key]), js(rps[key]))
    }
    printf "\nnoise of this machine, by the direct runs alone, (max - min) / median:"
    for (c = 1; c <= ncells; c++) {
        key = order[c] SUBSEP "direct"
        printf "  %s p50 %.0f %%, rate %.0f %%;", order[c], noise(p50[key]), noise(rps[key])
    }
    printf "\n\nadded p50 over direct (medians):"
    for (c = 1; c <= ncells; c++) {
        d = median(p50[order[c] SUBSEP "direct"])
        printf "  %s gateway %.3f ms", order[c], median(p50[order[c] SUBSEP "gateway"]) - d
        if (has_nginx) printf ", nginx %.3f ms", median(p50[order[c] SUBSEP "nginx"]) - d
        printf ";"
    }
    printf "\nmemory: idle %.1f MB; %d queued 1 KB requests add %.1f MB on connections of HTTP/1.1 of their own, %.1f MB over HTTP/2\n\naims:\n", \
        idle_kb / 1024, queued, (full_kb - idle_kb) / 1024, added2_kb / 1024
    verdict("gateway CPU per request, 1 KB, concurrency 64", median(cpu["1k-c64" SUBSEP "gateway"]), 60, "us")
    if (has_nginx)
        verdict("the same, times nginx", median(cpu["1k-c64" SUBSEP "gateway"]) / median(cpu["1k-c64" SUBSEP "nginx"]), 5, "x ")
    verdict("added p50, 1 KB, concurrency 1", median(p50["1k-c1" SUBSEP "gateway"]) - median(p50["1k-c1" SUBSEP "direct"]), 0.15, "ms")
    verdict("memory added by 10,000 queued 1 KB requests, HTTP/2", queued > 0 ? added2_kb / 1024 * 10000 / queued : 0, 100, "MB")
    verdict("the same, a connection of HTTP/1.1 each", queued > 0 ? (full_kb - idle_kb) / 1024 * 10000 / queued : 0, 100, "MB")
    verdict("memory idle", idle_kb / 1024, 80, "MB")
    printf "{\n  \"machine\": \"%s\",\n  \"rounds\": %d,\n  \"tokenizer\": \"%s\",\n  \"memory\": {\"idle_kb\": %d, \"queued\": %d, \"queued_kb\": %d, \"queued_http2_added_kb\": %d},\n  \"aims_missed\": %d,\n  \"cells\": [\n%s\n  ]\n}\n", \
        machine, rounds, tokenizer, idle_kb, queued, full_kb, added2_kb, missed, out > json
    exit (strict && missed > 0)
}
