/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_holding.h"

#include "mir_assert.h"

static mir_holding_generation *at(mir_holding *holding, uint64_t number)
{
    return &holding->of[number % MIR_HOLDING_GENERATIONS];
}

static void advance(mir_holding *holding)
{
    if (holding->count == 0) {
        /* Every mark has passed. Nothing is known yet of what is held next but that it is later than
         * what was told to have settled. */
        holding->oldest = ++holding->newest;
        *at(holding, holding->newest) = (mir_holding_generation){0};
        return;
    }
    while (at(holding, holding->oldest)->count == 0) holding->oldest++;
}

/* What comes from now on belongs to another generation, if there is a place for one. */
static void close_newest(mir_holding *holding, uint64_t handled)
{
    if (at(holding, holding->newest)->count == 0) {
        at(holding, holding->newest)->handled = handled;
        return;
    }
    if (holding->newest - holding->oldest + 1 == MIR_HOLDING_GENERATIONS) return;
    holding->newest++;
    *at(holding, holding->newest) = (mir_holding_generation){.handled = handled};
}

void mir_holding_remove(mir_holding *holding, uint8_t tag)
{
    MIR_ASSERT(holding->of[tag].count > 0);
    holding->of[tag].count--;
    holding->count--;
    advance(holding);
}

uint64_t mir_holding_mark(mir_holding *holding)
{
    uint64_t mark = holding->newest + (at(holding, holding->newest)->count != 0 ? 1 : 0);
    close_newest(holding, 0);
    return mark;
}

uint64_t mir_holding_settled_while_held(mir_holding *holding, uint64_t handled)
{
    uint64_t settled = at(holding, holding->oldest)->handled;
    close_newest(holding, handled);
    return settled;
}

void mir_holding_owe(mir_holding *holding, uint64_t position)
{
    mir_holding_generation *newest = at(holding, holding->newest);
    if (newest->owed == 0) {
        newest->count++;
        holding->count++;
    }
    newest->owed = position;
    holding->owes = true;
}

void mir_holding_paid(mir_holding *holding, uint64_t pushed)
{
    bool owes = false;
    for (uint64_t number = holding->oldest; number <= holding->newest; number++) {
        mir_holding_generation *generation = at(holding, number);
        if (generation->owed == 0) continue;
        if (generation->owed > pushed) {
            owes = true;
            continue;
        }
        generation->owed = 0;
        generation->count--;
        holding->count--;
    }
    holding->owes = owes;
    advance(holding);
}
