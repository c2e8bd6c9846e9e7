/* flux/hub/card-private.h: the parts of a model card. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 *   card.c        what is collected
 *   card-text.c   README.md
 *   card-chart.c  the loss as a picture
 *   card-words.c  trigger words, the base model's name
 *   card-folder.c what is there to push */
#pragma once

#include "flux/hub/card.h"
#include "flux/hub/push.h"

G_BEGIN_DECLS

typedef struct {
  guint64 step;
  double loss;
} FluxCardLoss;

typedef struct {
  char *prompt;
  char *path;  /* in the repository, where it is already; or */
  GBytes *png; /* its content */
} FluxCardPicture;

struct _FluxCard {
  GMutex lock;
  GArray *losses;       /* FluxCardLoss, by step */
  GArray *paired;       /* FluxCardLoss: first and last */
  GPtrArray *pictures;  /* FluxCardPicture */
  GPtrArray *settings;  /* name, value, name, value, ... */
  char **head, **tail;  /* words that all captions begin and end with; NULL: no caption */
  gboolean is_one_text; /* all captions are the same */
};

/* Of picture i; g_free() it. */
char *flux_card_picture_path (const FluxCard *self, guint i);

/* ---- card-text.c ---- */
char *flux_card_write_text (const FluxCard *self, const FluxCardText *text);

/* ---- card-chart.c ---- */
/* A PNG file; NULL when there is nothing to draw. */
GBytes *flux_card_draw_loss (const FluxCard *self);

/* ---- card-words.c ---- */
void flux_card_share_words (FluxCard *self, const char *caption);
/* Or NULL; g_free() it. */
char *flux_card_trigger_words (const FluxCard *self);

G_END_DECLS
