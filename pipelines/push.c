/* pipelines/push.c: gst-flux push: an adapter into a repository of the Hub, with a model
 * card. SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pipelines/push.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "flux/hub/card.h"
#include "flux/hub/push.h"
#include "pipelines/progress.h"

#define USAGE                                                                            \
  "gst-flux: write push FOLDER user/name [private=false] [base-model=user/name] "        \
  "[trigger-words='...'], or the adapter's file for FOLDER.\n"

typedef struct {
  gboolean is_private;
  const char *base_model, *trigger_words;
} Options;

static gboolean
parse (char **words, Options *options)
{
  *options = (Options){.is_private = TRUE};
  if (words[1] == NULL || words[2] == NULL)
    return FALSE;
  for (guint i = 3; words[i] != NULL; i++) {
    const char *value = strchr (words[i], '=');

    if (strcmp (words[i], "private=true") == 0 || strcmp (words[i], "private=false") == 0)
      options->is_private = strcmp (value, "=true") == 0;
    else if (g_str_has_prefix (words[i], "base-model="))
      options->base_model = value + 1;
    else if (g_str_has_prefix (words[i], "trigger-words="))
      options->trigger_words = value + 1;
    else
      return FALSE;
  }
  return TRUE;
}

/* The one that is there is the card. */
static gboolean
has_card (GPtrArray *files)
{
  for (guint i = 0; i < files->len; i++)
    if (strcmp (((FluxHubUpload *)files->pdata[i])->path, "README.md") == 0)
      return TRUE;
  return FALSE;
}

static char *
push (const char *source, const char *repo, const Options *options,
    GstFluxProgress *progress, GError **error)
{
  g_autoptr (GPtrArray) files =
      g_ptr_array_new_with_free_func ((GDestroyNotify)flux_hub_upload_free);
  g_autoptr (FluxCard) card = flux_card_new ();
  g_autofree char *weights = NULL, *base = NULL;
  FluxHubPush p = {repo, options->is_private, "Pushed by gst-flux", files};

  if (!flux_hub_check_push (repo, error) ||
      !flux_card_collect (card, source, files, &weights, error))
    return NULL;
  base = options->base_model != NULL ? g_strdup (options->base_model)
                                     : flux_card_base_model (source);
  if (!has_card (files)) {
    FluxCardText text = {repo, base, options->trigger_words, weights};

    flux_card_finish (card, &text, files);
  }
  return flux_hub_push (&p, gst_flux_progress_transfer, progress, error);
}

int
gst_flux_push_help (void)
{
  printf (
      "Usage: gst-flux push FOLDER user/name [name=value ...]\n\n"
      "Puts the files of a folder, or an adapter's file, into a repository of the\n"
      "Hugging Face Hub, in one commit, with a model card where there is no README.md,\n"
      "and prints its page. HF_TOKEN has to be a token that may write.\n\n"
      "  private=true         false: everybody may see the repository\n"
      "  base-model=          the model it was trained on, user/name, for the card\n"
      "  trigger-words=       what a prompt has to say, for the card\n");
  return 0;
}

int
gst_flux_push (char **words)
{
  GstFluxProgress progress;
  Options options;
  g_autoptr (GError) error = NULL;
  g_autofree char *page = NULL;

  if (!parse (words, &options)) {
    fprintf (stderr, USAGE);
    return 2;
  }
  gst_flux_progress_init (&progress, STDERR_FILENO);
  page = push (words[1], words[2], &options, &progress, &error);
  gst_flux_progress_break (&progress);
  if (page == NULL) {
    fprintf (stderr, "gst-flux: %s\n", error->message);
    return 1;
  }
  printf ("%s\n", page);
  return 0;
}
