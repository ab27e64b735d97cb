"""Every string of a report in two languages, and numbers as these write them."""

import math

LANGUAGES = ("en", "fr")

#: key: (English, French). Fields in braces are the same in both.
WORDS = {
    "title_change": ("Change report", "Rapport de changement"),
    "title_series": ("Land cover report", "Rapport d’occupation du sol"),
    "contents": ("Contents", "Sommaire"),
    "made_with": ("Made with OTBTorch {version} on {date}", "Produit avec OTBTorch {version} le {date}"),
    "grid_line": ("{columns} × {rows} pixels", "{columns} × {rows} pixels"),
    "pixel_of": ("pixels of {size}", "pixels de {size}"),
    "date_axis": ("%Y-%m", "%m/%Y"),
    # verdict
    "v_f1": ("F1 of change", "F1 du changement"),
    "v_precision": ("Precision", "Précision"),
    "v_recall": ("Recall", "Rappel"),
    "v_area": ("Area of change on the map", "Surface de changement sur la carte"),
    "v_corrected": ("Area of change, corrected for map error", "Surface de changement, corrigée des erreurs de la carte"),
    "v_share": ("{share} of the area with data", "{share} de la surface avec données"),
    "v_objects": ("Change objects", "Objets de changement"),
    "v_objects_note": ("median {area}", "médiane {area}"),
    "v_interval": ("95 % interval {low} to {high}", "intervalle à 95 % : {low} à {high}"),
    "v_plus_minus": ("± {half} (95 %)", "± {half} (95 %)"),
    "v_precision_note": ("of what is mapped as change, is change", "des changements cartographiés sont réels"),
    "v_recall_note": ("of what changed, was found", "des changements réels sont trouvés"),
    "v_mapped": ("Area mapped", "Surface cartographiée"),
    "v_classes": ("{n} classes", "{n} classes"),
    "v_largest": ("Largest class", "Classe la plus étendue"),
    "v_confidence": ("Mean confidence", "Confiance moyenne"),
    "v_confidence_note": ("of a sample", "d’un échantillon"),
    "v_confidence_all": ("over all pixels with data", "sur tous les pixels avec données"),
    "v_dates": ("Dates", "Dates"),
    "v_dates_note": ("{first} to {last}", "{first} – {last}"),
    "v_pairs": ("pooled over {n} pairs", "sur {n} paires réunies"),
    "v_no_reference": (
        "No reference was given: what follows describes the map, and does not say how good it is.",
        "Sans référence : ce rapport décrit la carte sans en mesurer la qualité.",
    ),
    # maps
    "s_maps": ("The maps", "Les cartes"),
    "m_date1": ("First date", "Première date"),
    "m_date2": ("Second date", "Seconde date"),
    "m_change": ("Change map", "Carte de changement"),
    "m_probability": ("Probability of change", "Probabilité de changement"),
    "m_score": ("Score of change", "Score de changement"),
    "m_pvalue": ("p-value", "Valeur p"),
    "m_errors": ("Errors against the reference", "Erreurs par rapport à la référence"),
    "m_sem1": ("Classes of the first date", "Classes de la première date"),
    "m_sem2": ("Classes of the second date", "Classes de la seconde date"),
    "m_confidence": ("Confidence", "Confiance"),
    "m_labels": ("Label map", "Carte de classes"),
    "m_valid": ("Valid dates", "Dates valides"),
    "m_series": ("Series", "Série"),
    "m_objects": ("Change objects", "Objets de changement"),
    "m_model": ("Model", "Modèle"),
    "m_image": ("Image of {date}", "Image du {date}"),
    "c_images": (
        "Bands {bands} as red, green and blue; both dates with one stretch (2 to 98 %), so that their colours compare.",
        "Bandes {bands} en rouge, vert, bleu ; même étirement (2 à 98 %) aux deux dates : les couleurs se comparent.",
    ),
    "c_images_apart": (
        "Bands {bands} as red, green and blue; each date with its own stretch (2 to 98 %): compare shapes, not colours.",
        "Bandes {bands} en rouge, vert, bleu ; chaque date a son étirement (2 à 98 %) : comparer les formes, non les couleurs.",
    ),
    "c_image": (
        "Bands {bands} as red, green and blue (2 to 98 %), a date with many valid pixels.",
        "Bandes {bands} en rouge, vert, bleu (2 à 98 %), à une date riche en pixels valides.",
    ),
    "c_change": ("Changes over the second date in pale grey.", "Changements sur la seconde date en gris clair."),
    "c_change_bare": ("Changes; white is no change.", "Changements ; blanc : pas de changement."),
    "c_ramp": ("From {low} (dark) to {high} (bright).", "De {low} (sombre) à {high} (clair)."),
    "c_pvalue": (
        "−log10 p, from {low} (dark) to {high} (bright): bright pixels are unlikely to be unchanged.",
        "−log10 p, de {low} (sombre) à {high} (clair) : les pixels clairs sont peu probablement inchangés.",
    ),
    "c_errors": (
        "What is right recedes; look for orange (false alarms) and blue (missed).",
        "Ce qui est juste s’efface ; chercher l’orange (fausses alarmes) et le bleu (manqués).",
    ),
    "c_labels": ("One colour a class.", "Une couleur par classe."),
    "c_valid": (
        "Number of valid dates a pixel, from {low} (dark) to {high} (bright): few dates, less certain labels.",
        "Nombre de dates valides par pixel, de {low} (sombre) à {high} (clair) : peu de dates, classe moins sûre.",
    ),
    "c_decimated": (
        "Overviews show one pixel in {n} (in each direction).",
        "Les vues d’ensemble montrent un pixel sur {n} (dans chaque direction).",
    ),
    "nodata": ("no data", "sans données"),
    # places
    "s_places": ("Chosen places", "Lieux choisis"),
    "s_wrong": ("Where it is wrong", "Où la carte se trompe"),
    "wrong_text": (
        "The {n} places of {side} × {side} pixels with most errors, worst first.",
        "Les {n} lieux de {side} × {side} pixels où les erreurs sont les plus nombreuses, le pire d’abord.",
    ),
    "places_text": (
        "The places that were asked for, at full resolution up to 512 pixels.",
        "Les lieux demandés, à pleine résolution jusqu’à 512 pixels.",
    ),
    "place_errors": ("{fp} false alarms, {fn} missed of {pixels} pixels", "{fp} fausses alarmes, {fn} manqués sur {pixels} pixels"),
    "width_of": ("{width} wide", "{width} de large"),
    # accuracy
    "s_accuracy": ("Accuracy", "Exactitude"),
    "figure": ("Figure", "Indicateur"),
    "value": ("Value", "Valeur"),
    "interval": ("95 % interval", "Intervalle à 95 %"),
    "evaluated": (
        "{evaluated} of {all} pixels are evaluated; the others have no data, no reference or are masked.",
        "{evaluated} pixels évalués sur {all} ; les autres sont sans données, sans référence ou masqués.",
    ),
    "blocks": (
        "Intervals by a bootstrap of {blocks} blocks of {side} × {side} pixels.",
        "Intervalles par bootstrap de {blocks} blocs de {side} × {side} pixels.",
    ),
    "g_binary": ("Change or not", "Changement ou non"),
    "g_score": ("Score, all thresholds", "Score, tous seuils"),
    "g_calibration": ("Calibration of the probability", "Calibration de la probabilité"),
    "g_objects": ("Objects", "Objets"),
    "g_two_date": ("Transitions, both dates stacked", "Transitions, deux dates empilées"),
    "g_from_to": ("Transitions, from-to codes", "Transitions, codes de-vers"),
    "f_precision": ("Precision", "Précision"),
    "f_recall": ("Recall", "Rappel"),
    "f_f1": ("F1", "F1"),
    "f_iou": ("IoU", "IoU"),
    "f_oa": ("Overall accuracy", "Exactitude globale"),
    "f_kappa": ("Kappa", "Kappa"),
    "f_mf1": ("Mean F1 (both classes)", "F1 moyen (deux classes)"),
    "f_miou": ("Mean IoU (both classes)", "IoU moyen (deux classes)"),
    "f_f1_no_change": ("F1 of no change", "F1 du non-changement"),
    "f_iou_no_change": ("IoU of no change", "IoU du non-changement"),
    "f_predicted_share": ("Share mapped as change", "Part cartographiée changée"),
    "f_prevalence": ("Share that changed (reference)", "Part changée (référence)"),
    "f_auroc": ("Area under the ROC curve", "Aire sous la courbe ROC"),
    "f_ap": ("Average precision", "Précision moyenne (AP)"),
    "f_fpr95": ("False alarms at 95 % recall", "Fausses alarmes à 95 % de rappel"),
    "f_best_f1": ("F1 at the best threshold (oracle)", "F1 au meilleur seuil (oracle)"),
    "f_best_f1_threshold": ("That threshold", "Ce seuil"),
    "f_ece": ("Expected calibration error", "Erreur de calibration (ECE)"),
    "f_ece_change": ("– of change", "– du changement"),
    "f_ece_no_change": ("– of no change", "– du non-changement"),
    "f_ece_classwise": ("– mean of both", "– moyenne des deux"),
    "f_brier": ("Brier score", "Score de Brier"),
    "f_mean_probability": ("Mean probability", "Probabilité moyenne"),
    "f_sek": ("SeK", "SeK"),
    "f_fscd": ("Fscd", "Fscd"),
    "f_score": ("Score (0.3 mIoU + 0.7 SeK)", "Score (0,3 mIoU + 0,7 SeK)"),
    "f_mean_iou": ("Mean IoU of matches", "IoU moyen des appariés"),
    "confusion": ("Confusion matrix", "Matrice de confusion"),
    "confusion_text": (
        "Pixels. Rows are what the map says, columns the reference: the diagonal is right. Shade: share of the row.",
        "Pixels. Lignes : la carte ; colonnes : la référence ; la diagonale est juste. Teinte : part de la ligne.",
    ),
    "map_says": ("Map", "Carte"),
    "reference_says": ("Reference", "Référence"),
    "total": ("Total", "Total"),
    "matrix_two_date": ("Confusion of the classes of both dates", "Confusion des classes des deux dates"),
    "matrix_date": ("Confusion at date {n}", "Confusion à la date {n}"),
    "objects_match": (
        "{matched} of {predicted} mapped objects match one of {reference} in the reference (IoU of at least one half).",
        "{matched} des {predicted} objets cartographiés s’apparient à l’un des {reference} de la référence (IoU d’au moins un demi).",
    ),
    "pairs": ("Pair by pair", "Paire par paire"),
    "pair": ("Pair", "Paire"),
    "pairs_text": (
        "The pool sums the counts of all pairs before any figure is made: it is not the mean of the rows.",
        "L’ensemble somme les effectifs de toutes les paires avant tout calcul : ce n’est pas la moyenne des lignes.",
    ),
    "pooled": ("All together", "Ensemble"),
    # curves
    "h_histogram": ("Histogram", "Histogramme"),
    "h_roc": ("ROC curve", "Courbe ROC"),
    "h_pr": ("Precision and recall", "Précision et rappel"),
    "h_reliability": ("Reliability", "Fiabilité"),
    "axis_pixels": ("pixels", "pixels"),
    "axis_fpr": ("false positive rate", "taux de fausses alarmes"),
    "axis_tpr": ("true positive rate", "taux de détection"),
    "axis_recall": ("recall", "rappel"),
    "axis_precision": ("precision", "précision"),
    "axis_predicted": ("mean probability", "probabilité moyenne"),
    "axis_observed": ("share that changed", "part réellement changée"),
    "legend_no_change": ("no change (reference)", "pas de changement (référence)"),
    "legend_change": ("change (reference)", "changement (référence)"),
    "threshold_at": ("threshold {value}", "seuil {value}"),
    "c_histogram": (
        "All pixels by their value, on a logarithmic scale. Right of the dashed line is change.",
        "Tous les pixels selon leur valeur, échelle logarithmique. À droite du tireté : changement.",
    ),
    "c_histogram_bare": ("Pixels by their value, on a logarithmic scale.", "Pixels selon leur valeur, échelle logarithmique."),
    "c_histogram_classes": (
        "By the reference: unchanged pixels filled, changed ones as a line. The less they overlap, the better; the dashed line is the threshold.",
        "Selon la référence : inchangés pleins, changés en trait. Moins ils se recouvrent, mieux c’est ; tireté : seuil.",
    ),
    "c_sampled": ("From a sample of {pixels} pixels.", "D’après un échantillon de {pixels} pixels."),
    "c_roc": (
        "Every threshold at once; the upper left corner is best, the dashed line is chance. Area: {auroc}. The dot is this map.",
        "Tous les seuils à la fois ; le coin supérieur gauche est idéal, le tireté le hasard. Aire : {auroc}. Point : cette carte.",
    ),
    "c_pr": (
        "Says more than ROC where change is rare; the upper right corner is best, the dashed line is chance. Average precision: {ap}. The dot is this map.",
        "Plus parlant que ROC si le changement est rare ; le coin supérieur droit est idéal, le tireté le hasard. AP : {ap}. Point : cette carte.",
    ),
    "c_reliability": (
        "On the diagonal, pixels of probability p changed in p of the cases. Above it the model is too cautious, below too sure. Larger points, more pixels.",
        "Sur la diagonale, les pixels de probabilité p ont changé dans une part p des cas. Au-dessus : modèle trop prudent ; au-dessous : trop sûr. Point plus grand : plus de pixels.",
    ),
    "threshold_origin": ("Threshold {value}: {origin}.", "Seuil {value} : {origin}."),
    "origin_contract": ("of the model's contract", "du contrat du modèle"),
    "origin_given": ("given with the run", "donné au lancement"),
    "origin_half": ("one half", "un demi"),
    # areas
    "s_areas": ("Areas", "Surfaces"),
    "class": ("Class", "Classe"),
    "pixels": ("Pixels", "Pixels"),
    "area": ("Area", "Surface"),
    "share": ("Share", "Part"),
    "areas_text": ("Counted on the map, over the pixels with data.", "Comptées sur la carte, sur les pixels avec données."),
    "areas_sampled": ("Estimated from a sample of the map.", "Estimées d’après un échantillon de la carte."),
    "areas_warning": (
        "Areas that are counted on a map are as wrong as the map: correct them with a labelled sample (otbcli_ChangeEvaluation -mode sample).",
        "Une surface comptée sur une carte hérite de ses erreurs : la corriger par un échantillon étiqueté (otbcli_ChangeEvaluation -mode sample).",
    ),
    "transitions": ("From which class to which", "De quelle classe vers quelle classe"),
    "transitions_text": (
        "{unit}. Rows are the first date, columns the second. Shade: share of the row.",
        "{unit}. Lignes : première date ; colonnes : seconde date. Teinte : part de la ligne.",
    ),
    "from_to_corner": ("from \\ to", "de \\ vers"),
    "corrected": ("Corrected for map error", "Corrigées des erreurs de la carte"),
    "corrected_text": (
        "From {n} labelled points of a stratified sample (Olofsson et al., 2014); ± is the half width of the 95 % interval.",
        "D’après {n} points étiquetés d’un échantillon stratifié (Olofsson et al., 2014) ; ± : demi-largeur de l’intervalle à 95 %.",
    ),
    "mapped": ("On the map", "Sur la carte"),
    "estimated": ("Estimated", "Estimée"),
    "users": ("User’s accuracy", "Exactitude utilisateur"),
    "producers": ("Producer’s accuracy", "Exactitude producteur"),
    # objects
    "s_objects": ("Change objects", "Objets de changement"),
    "objects_text": ("{n} objects, {area} in total; median {median}.", "{n} objets, {area} au total ; médiane {median}."),
    "objects_none": ("The file holds no objects.", "Le fichier ne contient aucun objet."),
    "o_largest": ("The largest", "Les plus grands"),
    "o_doubtful": ("The most doubtful", "Les plus douteux"),
    "o_largest_text": ("Before and after, outlined.", "Avant et après, contour tracé."),
    "o_doubtful_text": (
        "Those nearest to the threshold, before and after: look at these first.",
        "Les plus proches du seuil, avant et après : à vérifier en premier.",
    ),
    "o_doubtful_pvalue": (
        "Those with the largest p-values, before and after: look at these first.",
        "Ceux aux plus grandes valeurs p, avant et après : à vérifier en premier.",
    ),
    "o_object": ("Object {id}", "Objet {id}"),
    "o_mean": ("mean {value}", "moyenne {value}"),
    "o_p": ("p = {value}", "p = {value}"),
    # season
    "s_season": ("Through the season", "Au fil de la saison"),
    "season_text": (
        "{name} by class of the map: the line is the median of valid pixels, the band holds the middle half. Classes that lie on each other are hard to tell apart.",
        "{name} par classe de la carte : le trait est la médiane des pixels valides, la bande contient la moitié centrale. Des classes superposées se distinguent mal.",
    ),
    "season_pixels": ("Pixels looked at", "Pixels examinés"),
    # run
    "s_run": ("How it was made", "Comment elle a été faite"),
    "run_settings": ("Settings of {name}", "Paramètres de {name}"),
    "evaluation_settings": ("Settings of ChangeEvaluation", "Paramètres de ChangeEvaluation"),
    "file_settings": ("Noted in the file", "Notés dans le fichier"),
    "key": ("Key", "Clé"),
    "meaning": ("Meaning", "Sens"),
    "run_log": ("What the application said", "Ce que l’application a dit"),
    "log_all": ("The whole log", "Le journal complet"),
    "warnings": ("Warnings", "Avertissements"),
    "versions": ("Versions", "Versions"),
    "files": ("Files", "Fichiers"),
    "file": ("File", "Fichier"),
    "what": ("What", "Contenu"),
    "size": ("Size", "Taille"),
    "date_of_file": ("Written", "Écrit le"),
    # model
    "s_model": ("The model", "Le modèle"),
    "model_name": ("Name", "Nom"),
    "model_architecture": ("Network", "Réseau"),
    "model_task": ("Task", "Tâche"),
    "model_bands": ("Bands", "Bandes"),
    "model_tiling": ("Tiling", "Découpage"),
    "model_patch": ("patches of {patch}, halo {halo}, {blend}", "imagettes de {patch}, halo {halo}, {blend}"),
    "model_pixel": ("pixel by pixel, windows of {window}", "pixel par pixel, fenêtres de {window}"),
    "model_calibration": ("Calibration", "Calibration"),
    "model_temperature": ("temperature {temperature}, threshold {threshold}", "température {temperature}, seuil {threshold}"),
    "model_training": ("Trained on", "Entraîné sur"),
    "model_license": ("Licence", "Licence"),
    "model_card": ("Model card", "Fiche du modèle"),
    # labels that the applications write
    "l_no change": ("no change", "pas de changement"),
    "l_change": ("change", "changement"),
    "l_change found": ("change found", "changement trouvé"),
    "l_false alarm": ("false alarm", "fausse alarme"),
    "l_change missed": ("change missed", "changement manqué"),
    # alternative texts
    "alt_picture": ("Picture: {what}", "Image : {what}"),
    "alt_plot": ("Plot: {what}", "Graphique : {what}"),
    "alt_place": ("{what} at {place}", "{what}, lieu {place}"),
    "alt_object": ("Object {id}, {what}", "Objet {id}, {what}"),
    # QGIS
    "q_maps": ("Maps", "Cartes"),
    "q_images": ("Images", "Images"),
    "unit_ha": ("Hectares", "Hectares"),
    "unit_pixels": ("Pixels", "Pixels"),
}

THIN, MINUS = "\u202f", "−"


class Words:
    """``words(key, **fields)`` is a string of the language; numbers come as it writes them."""

    def __init__(self, language):
        self.language = language
        self._at = LANGUAGES.index(language)

    def __call__(self, key, **fields):
        text = WORDS[key][self._at].replace(" %", "\u00a0%")
        for sign in ":;?!" if self.language == "fr" else "":
            text = text.replace(" " + sign, "\u00a0" + sign)
        return text.format(**fields) if fields else text

    def label(self, text):
        """What an application named a class; those that it makes up itself are translated."""
        for sign in (" -> ", " > "):
            if sign in text:
                return " → ".join(self.label(part) for part in text.split(sign))
        return self("l_" + text) if "l_" + text in WORDS else text

    def _local(self, text):
        return text.replace(".", ",") if self.language == "fr" else text

    def number(self, value, digits=3):
        """Up to 1 that many decimals (more where these would say 0 or 1), beyond that many significant digits; a dash where undefined."""
        if value is None or not math.isfinite(value):
            return "–"
        size = abs(value)
        if size <= 1:
            least = min(size, 1 - size)
            if 0 < least < 10.0 ** -(digits - 1):
                digits = min(6, max(digits, 1 - math.floor(math.log10(least))))
            text = "%.*f" % (digits, value)
        elif size < 10**digits:
            text = "%.*f" % (digits - 1 - math.floor(math.log10(size)), value)
        else:
            return self.integer(value)
        return self._local(text).replace("-", MINUS)

    def integer(self, value):
        if value is None or not math.isfinite(value):
            return "–"
        return "{:,}".format(int(round(value))).replace(",", THIN).replace("-", MINUS)

    def tick(self, value):
        return self._local("%g" % round(value, 9)).replace("-", MINUS)

    def percent(self, share, digits=1):
        if share is None or not math.isfinite(share):
            return "–"
        if 0 < share < 0.0005:
            digits = 3
        return self._local("%.*f" % (digits, 100 * share)) + "\u00a0%"

    def decimals(self, value, digits=6):
        """A coordinate."""
        return self._local("%.*f" % (digits, value)).replace("-", MINUS)

    def area(self, metres):
        """Square metres as m², ha or km²."""
        if metres is None or not math.isfinite(metres):
            return "–"
        for limit, unit, name in ((1e4, 1, "m²"), (1e8, 1e4, "ha"), (math.inf, 1e6, "km²")):
            if abs(metres) < limit:
                break
        value = metres / unit
        digits = 0 if unit == 1 or abs(value) >= 1000 else 1 if abs(value) >= 10 else 2
        whole = "{:,.{d}f}".format(value, d=digits).replace(",", THIN)
        return self._local(whole) + "\u00a0" + name

    def hectares(self, value):
        """A number alone, as area() writes it."""
        digits = 0 if not value or abs(value) >= 1000 else 1 if abs(value) >= 10 else 2
        return self._local("{:,.{d}f}".format(value, d=digits).replace(",", THIN))

    def length(self, metres):
        text = "%g\u00a0km" % (metres / 1000) if metres >= 1000 else "%g\u00a0m" % metres
        return self._local(text)

    def pixels(self, n):
        return self.integer(n) + "\u00a0px"

    def bytes(self, n):
        for unit in ("B", "kB", "MB", "GB"):
            if n < 1000 or unit == "GB":
                break
            n /= 1000
        name = {"B": "o", "kB": "ko", "MB": "Mo", "GB": "Go"}[unit] if self.language == "fr" else unit
        return self._local("%.3g" % n if n < 1000 else "%.0f" % n) + "\u00a0" + name

    def between(self, interval, digits=3):
        if interval is None:
            return "–"
        joint = " à " if self.language == "fr" else " to "
        return joint.join(self.number(v, digits) for v in interval)

    def date(self, when):
        """A ``datetime.date``."""
        return when.strftime("%d/%m/%Y") if self.language == "fr" else when.isoformat()

    def degrees(self, longitude, latitude):
        ns, ew = ("N" if latitude >= 0 else "S"), (
            ("E" if longitude >= 0 else "O") if self.language == "fr" else "E" if longitude >= 0 else "W"
        )
        return "%s° %s, %s° %s" % (self.decimals(abs(latitude), 5), ns, self.decimals(abs(longitude), 5), ew)
