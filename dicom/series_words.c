/* Phase words in a series description, as technologists write them.
 *
 * The text is folded to lower-case ASCII words; a table of words and short
 * phrases is searched on word boundaries. Numbers with a time unit count too
 * ("35s", "70 sec", "5 min"). A description often names the protocol rather
 * than the series ("LIVER 3 PHASE", "ART/VEN"); the caller sees several bits
 * then and weighs them less. "ap" is never arterial: it is abdomen/pelvis or a
 * scout's view. The languages are those whose habits we know; a site adds its
 * own words with phase rules.
 */
#include "dicom/series_words.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
    NC = 1u << HP_PHASE_NC,
    A = 1u << HP_PHASE_A,
    V = 1u << HP_PHASE_V,
    D = 1u << HP_PHASE_D
};

/* Latin-1 letters 0xC0..0xFF without their accents; Turkish Latin-5 differs in
 * six places, of which 0xF0 (g), 0xFD (dotless i) and 0xFE (s) matter here. */
static const char LATIN[] = "aaaaaaaceeeeiiiignooooo ouuuuiss"
                            "aaaaaaaceeeeiiiignooooo ouuuuisy";

static char fold_latin(unsigned code)
{
    if (code >= 0xC0 && code <= 0xFF)
        return LATIN[code - 0xC0];
    switch (code) {
    case 0x11E:
    case 0x11F:
        return 'g'; /* g breve */
    case 0x130:
    case 0x131:
        return 'i'; /* Turkish i */
    case 0x15E:
    case 0x15F:
        return 's'; /* s cedilla */
    case 0x160:
    case 0x161:
        return 's';
    default:
        return ' ';
    }
}

/* The next character as folded ASCII; advances *at. */
static char next_folded(const unsigned char **at)
{
    unsigned char c = **at;

    ++*at;
    if (c < 0x80)
        return (char)tolower(c);
    if ((c & 0xE0) == 0xC0 && (**at & 0xC0) == 0x80) {
        unsigned code = (c & 0x1Fu) << 6 | (**at & 0x3Fu);

        ++*at;
        return fold_latin(code);
    }
    return fold_latin(c);
}

static bool is_word(char c)
{
    return isalnum((unsigned char)c) || c == '+' || c == '-' || c == '/';
}

void hp_fold_text(const char *text, char *ret, unsigned size)
{
    const unsigned char *at = (const unsigned char *)text;
    unsigned n = 0;

    ret[n++] = ' ';
    while (*at != 0 && n + 2 < size) {
        char c = next_folded(&at);

        if (is_word(c))
            ret[n++] = c;
        else if (ret[n - 1] != ' ')
            ret[n++] = ' ';
    }
    if (ret[n - 1] != ' ')
        ret[n++] = ' ';
    ret[n] = 0;
}

/* '-' and '/' bind only where a table word holds them ("w/o", "c-"); elsewhere
 * they separate ("ART/VEN", "non-contrast"). */
static void split_joiners(char *folded)
{
    static const char *const KEEP[] = {" w/o ", " c- ", " c+ ", " s/c ", " s/iv "};

    for (char *c = folded; *c != 0; c++) {
        bool keep = false;

        if (*c != '-' && *c != '/' && *c != '+')
            continue;
        for (size_t k = 0; k < sizeof KEEP / sizeof KEEP[0]; k++) {
            size_t off = strcspn(KEEP[k], "-/+");
            const char *from = c - off;

            /* An end of the folded text or a blank must surround it. */
            if (from >= folded && strncmp(from, KEEP[k], strlen(KEEP[k])) == 0)
                keep = true;
        }
        if (!keep)
            *c = ' ';
    }
}

/* clang-format off */
static const struct {
    const char *word;
    unsigned phase;
} WORDS[] = {
    /* Longer phrases first: a hit is blanked out, so "non contrast" leaves no
     * "contrast" and "late arterial" no "late". */
    {"late arterial", A}, {"late art", A}, {"early arterial", A}, {"early art", A},
    {"late portal", V}, {"late venous", V}, {"late ven", V}, {"early portal", V},
    {"porto venous", V}, {"portal venous", V}, {"portal vein", V}, {"hepatic venous", V},
    {"porto ven", V}, {"portal ven", V}, {"portal venos", V}, {"portal venoes", V},
    {"veineux portal", V}, {"venosa portal", V},
    {"non contrast", NC}, {"non con", NC}, {"non enhanced", NC}, {"no contrast", NC},
    {"without contrast", NC}, {"pre contrast", NC}, {"pre con", NC}, {"pre kontrast", NC},
    {"sans injection", NC}, {"sans contraste", NC}, {"sans iv", NC}, {"sans pdc", NC},
    {"sin contraste", NC}, {"ohne km", NC}, {"ohne kontrastmittel", NC},
    {"senza mdc", NC}, {"w/o", NC}, {"c-", NC}, {"s/c", NC}, {"s/iv", NC},

    {"noncontrast", NC}, {"noncon", NC}, {"nonenhanced", NC}, {"unenhanced", NC},
    {"precontrast", NC}, {"precon", NC}, {"without", NC}, {"wo", NC}, {"plain", NC},
    {"native", NC}, {"nativ", NC}, {"nat", NC}, {"nativo", NC}, {"nativa", NC}, {"pre", NC},
    {"nc", NC}, {"ncct", NC}, {"nect", NC}, {"basal", NC}, {"basale", NC}, {"spc", NC},
    {"kontrastsiz", NC},

    {"arterial", A}, {"art", A}, {"arteriell", A}, {"arterielle", A}, {"arteriel", A},
    {"arterieller", A}, {"arteriale", A}, {"arteriosa", A}, {"arteriyel", A}, {"hap", A},
    {"lap", A}, {"eap", A},

    {"portovenous", V}, {"portalvenos", V}, {"portalvenoes", V}, {"portalvenous", V},
    {"portal", V}, {"portale", V}, {"portalphase", V}, {"venous", V}, {"ven", V},
    {"venos", V}, {"venoes", V}, {"venose", V}, {"venoese", V}, {"venosa", V},
    {"venoso", V}, {"venoz", V}, {"veineux", V}, {"veineuse", V}, {"pvp", V}, {"pv", V},
    {"hvp", V},

    {"delayed", D}, {"delay", D}, {"delays", D}, {"dly", D}, {"equilibrium", D},
    {"equil", D}, {"equilibre", D}, {"equilibrio", D}, {"late", D}, {"dp", D},
    {"tardif", D}, {"tardive", D}, {"tardivo", D}, {"tardiva", D}, {"tardia", D},
    {"tardio", D}, {"spat", D}, {"spaet", D}, {"spatphase", D}, {"spaetphase", D},
    {"retardo", D}, {"retardada", D}, {"gec", D},
};
/* clang-format on */

/* Blanks the word at `at` so that its parts are not counted again. */
static void blank(char *at, size_t len)
{
    memset(at, ' ', len);
}

static unsigned seconds_to_phase(long s)
{
    if (s >= 15 && s <= 48)
        return A;
    if (s >= 55 && s <= 110)
        return V;
    if (s >= 120 && s <= 1200)
        return D;
    return 0;
}

/* "35s", "35 s", "70sec", "180 secs", "3 min", "5min". A bare number is not a
 * time, and a slice thickness has the unit mm. */
static unsigned timing_words(const char *folded)
{
    unsigned hit = 0;

    for (const char *c = folded; *c != 0; c++) {
        char *end;
        long v;
        size_t unit;

        if (!isdigit((unsigned char)*c) || c[-1] != ' ')
            continue;
        v = strtol(c, &end, 10);
        while (*end == ' ')
            end++;
        unit = strcspn(end, " ");
        if ((unit == 1 && *end == 's') ||
            (unit >= 3 && unit <= 7 && strncmp(end, "sec", 3) == 0) ||
            (unit == 3 && strncmp(end, "sek", 3) == 0))
            hit |= seconds_to_phase(v);
        else if ((unit == 3 || unit == 4) && strncmp(end, "min", 3) == 0 && v >= 2 &&
                 v <= 20)
            hit |= D;
    }
    return hit;
}

static bool has_word(const char *folded, const char *spaced)
{
    return strstr(folded, spaced) != NULL;
}

static void blank_word(char *folded, const char *spaced)
{
    for (char *at = folded; (at = strstr(at, spaced)) != NULL; at++)
        blank(at, strlen(spaced));
}

/* "W & W/O", "PRE/POST" name the whole protocol, not this series. */
static void drop_both(char *folded)
{
    static const char *const WITHOUT[] = {" w/o ", " wo ", " without "};

    if (has_word(folded, " w ") || has_word(folded, " with "))
        for (size_t i = 0; i < sizeof WITHOUT / sizeof WITHOUT[0]; i++)
            blank_word(folded, WITHOUT[i]);
    if (has_word(folded, " post "))
        blank_word(folded, " pre ");
}

unsigned hp_phase_words(const char *text, const char **ret_word)
{
    char folded[256];
    unsigned hit = 0, timed;
    const char *first = NULL;

    hp_fold_text(text, folded, sizeof folded);
    split_joiners(folded);
    drop_both(folded);
    for (size_t w = 0; w < sizeof WORDS / sizeof WORDS[0]; w++) {
        size_t len = strlen(WORDS[w].word);

        for (char *at = folded; (at = strstr(at, WORDS[w].word)) != NULL; at += len) {
            if (at[-1] != ' ' || at[len] != ' ')
                continue;
            hit |= WORDS[w].phase;
            if (first == NULL)
                first = WORDS[w].word;
            blank(at, len);
        }
    }
    timed = timing_words(folded);
    /* A time is evidence where no word is, and says which delay is meant
     * ("DELAY 70 S"). "VENOUS 3 MIN" stays venous. */
    if (timed != 0 && timed != hit && (hit == 0 || hit == D)) {
        hit = timed;
        first = timed == A   ? "15 to 48 s"
                : timed == V ? "55 to 110 s"
                : timed == D ? "120 s or more"
                             : "several times";
    }
    if (ret_word != NULL)
        *ret_word = first;
    return hit;
}
